package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// eraseCommand is `fanfare erase --phone`: it orders an erasure and waits for its end.
func (s *Setup) eraseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "erase",
		Short: "On a server: erase a person",
		Long: `Remove a number, and what is known of the person behind it, from contacts, frozen audiences,
statistics, exports, uploads and kept answers of the tenant. The command waits until that is done,
and prints what was removed and where the number still is until when. An interrupt leaves the
erasure running: fanfare erasure show ID says how far it is.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return s.Usage(fmt.Errorf("%s wants no argument: give the number as --phone", cmd.CommandPath()))
			}
			return nil
		},
	}
	cmd.Flags().AddFlagSet(s.common())
	phone := cmd.Flags().String("phone", "", "the number, such as +393331234567")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, out, err := s.connect(cmd)
		if err != nil {
			return s.Usage(err)
		}
		if *phone == "" {
			return s.Usage(errors.New("--phone is needed"))
		}
		body, err := json.Marshal(map[string]string{"phoneNumber": *phone})
		if err != nil {
			return err
		}
		answer, err := c.do(cmd.Context(), http.MethodPost, "/api/erasures", nil, strings.NewReader(string(body)), "application/json")
		if err != nil {
			return err
		}
		return s.awaitErasure(cmd.Context(), c, out, answer)
	}
	return cmd
}

// awaitErasure waits until an erasure is done and prints it.
func (s *Setup) awaitErasure(ctx context.Context, c *client, out *printer, answer []byte) error {
	for {
		var e struct {
			ID     string   `json:"id"`
			Status string   `json:"status"`
			Error  string   `json:"error"`
			Stays  []string `json:"stays"`
		}
		if err := json.Unmarshal(answer, &e); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		switch e.Status {
		case "done":
			return out.print(answer)
		case "failed":
			return fmt.Errorf("erasure %s failed: %s. Not everything was removed: order it again with fanfare erase --phone", e.ID, e.Error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; it runs on: fanfare erasure show %s", ctx.Err(), e.ID)
		case <-time.After(importPoll):
		}
		var err error
		if answer, err = c.do(ctx, http.MethodGet, "/api/erasures/"+e.ID, nil, nil, ""); err != nil {
			return err
		}
	}
}
