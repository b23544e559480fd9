package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) readyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ready",
		Short: "Ask the fanfare that listens at --http whether it is ready",
		Long: `Ask /readyz of the process that listens at --http, and print its answer.

For health checks in images without a shell. Exit code 0: it is ready.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		return p.ready(cmd.Context(), cfg.HTTP)
	}
	return cmd
}

func (p *program) ready(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return usageError{fmt.Errorf("--http %q: want host:port", addr)}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // it listens on every address; the name localhost needs a file that an image may lack
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return usageError{fmt.Errorf("--http %q: %w", addr, err)}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ready: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(p.stdout, io.LimitReader(resp.Body, 1<<16)); err != nil {
		return fmt.Errorf("ready: %w", err)
	}
	fmt.Fprintln(p.stdout)
	if resp.StatusCode != http.StatusOK {
		return errReported
	}
	return nil
}
