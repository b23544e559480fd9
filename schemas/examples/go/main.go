// Command go is an example client: it sends a campaign with the client that oapi-codegen makes of the OpenAPI document,
// and waits until it is completed.
//
//	FANFARE_URL=http://127.0.0.1:8080 FANFARE_KEY=… go run ./schemas/examples/go +393331234567 +393331234568
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"fanfare/schemas/examples/go/client"
)

func main() {
	if err := run(context.Background(), os.Getenv("FANFARE_URL"), os.Getenv("FANFARE_KEY"), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sent is what the example prints.
type sent struct {
	Campaign string  `json:"campaign"`
	Cost     float64 `json:"cost"`
	Total    int64   `json:"total"`
	Sent     int64   `json:"sent"`
}

func run(ctx context.Context, url, key string, phones []string) error {
	if url == "" || key == "" || len(phones) == 0 {
		return errors.New("usage: FANFARE_URL=… FANFARE_KEY=… go run ./schemas/examples/go NUMBER…")
	}
	fanfare, err := client.NewClientWithResponses(url, client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("X-Api-Key", key)
		return nil
	}))
	if err != nil {
		return err
	}
	// A request that is repeated with the same key has an effect once.
	prefix := rand.Text()
	once := func(what string) *string { return new(prefix + "-" + what) }

	list, err := fanfare.CreateListWithResponse(ctx, &client.CreateListParams{IdempotencyKey: once("list")}, client.ListInput{Name: "Example " + prefix})
	if err != nil {
		return err
	}
	if list.JSON201 == nil {
		return problem("make the list", list.Body)
	}
	for _, phone := range phones {
		made, err := fanfare.CreateContactWithResponse(ctx, &client.CreateContactParams{IdempotencyKey: once(phone)}, client.ContactCreate{
			PhoneNumber: phone, FirstName: new("Anna"), ListIds: &[]string{list.JSON201.Id},
		})
		if err != nil {
			return err
		}
		if made.JSON201 == nil {
			return problem("add a contact", made.Body)
		}
	}
	var to client.CampaignCreate_ContactList // an id or a name, or an array of them
	if err := to.FromCampaignCreateContactList0(list.JSON201.Id); err != nil {
		return err
	}
	campaign, err := fanfare.CreateCampaignWithResponse(ctx, &client.CreateCampaignParams{IdempotencyKey: once("campaign")}, client.CampaignCreate{
		Name: "From Go", Channel: new(client.CampaignCreateChannelSms), Message: new("Ciao {{first_name}}"), ContactList: &to, SendImmediately: new(true),
	})
	if err != nil {
		return err
	}
	if campaign.JSON201 == nil {
		return problem("make the campaign", campaign.Body)
	}
	id := campaign.JSON201.Id
	price, err := fanfare.GetPriceWithResponse(ctx, id)
	if err != nil {
		return err
	}
	if price.JSON200 == nil {
		return problem("ask for the price", price.Body)
	}
	confirmed, err := fanfare.ConfirmCampaignWithResponse(ctx, id, nil, client.ConfirmInput{ExpectedCost: &price.JSON200.EstimatedCost})
	if err != nil {
		return err
	}
	if confirmed.JSON200 == nil {
		return problem("confirm", confirmed.Body)
	}
	for {
		stats, err := fanfare.GetCampaignStatsWithResponse(ctx, id, nil)
		if err != nil {
			return err
		}
		switch v := stats.JSON200; {
		case v == nil:
			return problem("ask for the statistics", stats.Body)
		case v.State == "completed" && v.Pending == 0:
			return json.NewEncoder(os.Stdout).Encode(sent{Campaign: id, Cost: price.JSON200.EstimatedCost, Total: v.TotalMessages, Sent: v.Sent})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// problem is the error of an answer that is no success. Every failure names what to do about it.
func problem(what string, body []byte) error {
	var p client.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		return fmt.Errorf("%s: %s", what, body)
	}
	return fmt.Errorf("%s: %d %s: %s %s", what, p.Status, p.Code, p.Detail, p.Fix)
}
