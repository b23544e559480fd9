package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/schemas"
)

// submitter makes the load through the API.
type submitter struct {
	o      *options
	run    string // name of the run, unique
	list   string // id of the list of the campaigns
	http   *http.Client
	ledger *ledger
	pace   pace

	refused atomic.Int64 // destinations that the API did not accept

	mu    sync.Mutex
	times histogram // of requests
}

// pace lets requests begin at a steady rate.
type pace struct {
	mu    sync.Mutex
	next  time.Time
	every time.Duration
}

// wait returns when the next request may begin; false: ctx has ended.
func (p *pace) wait(ctx context.Context) bool {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(p.every)
	p.mu.Unlock()
	return sleep(ctx, time.Until(at))
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// submit makes all requests.
func (s *submitter) submit(ctx context.Context) error {
	if s.o.campaigns > 0 {
		if err := s.makeList(ctx); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.o.concurrency)
	for n := range s.o.campaigns {
		group.Go(func() error { return s.campaign(ctx, n) })
	}
	for first := 0; first < s.o.singles && ctx.Err() == nil; first += s.o.perRequest {
		group.Go(func() error { return s.single(ctx, first, min(s.o.perRequest, s.o.singles-first)) })
	}
	return group.Wait()
}

// number is a number that looks like an Italian mobile phone; only the simulated carrier sees it.
func number(n int) string { return fmt.Sprintf("+39340%07d", n) }

// makeList imports the people of the campaigns into a test list: campaigns to it go to simulated routes.
func (s *submitter) makeList(ctx context.Context) error {
	var list struct{ ID string }
	if err := s.call(ctx, http.MethodPost, "/api/contacts/list", map[string]any{"name": s.run, "isTest": true}, &list, ""); err != nil {
		return err
	}
	s.list = list.ID
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	for n := range s.o.people {
		csv.WriteString(number(n) + "\n")
	}
	return s.call(ctx, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", csv.Bytes(), nil, "")
}

// campaign makes and confirms a campaign. Its recipients count from the confirm.
func (s *submitter) campaign(ctx context.Context, n int) error {
	name := fmt.Sprintf("%s %d", s.run, n+1)
	body := map[string]any{"name": name, "channel": "sms", "message": s.o.message, "contactList": s.list, "sendImmediately": true}
	if s.o.campaignRate > 0 {
		body["rate"] = s.o.campaignRate
	}
	var made struct{ ID string }
	if err := s.call(ctx, http.MethodPost, "/api/campaigns", body, &made, name); err != nil {
		return err
	}
	campaign, err := schemas.CampaignNumber(made.ID)
	if err != nil {
		return fmt.Errorf("the API has made campaign %q: %w", made.ID, err)
	}
	var view struct{ TestRun bool }
	if err := s.call(ctx, http.MethodGet, "/api/campaigns/"+made.ID, nil, &view, ""); err != nil {
		return err
	}
	if !view.TestRun {
		return fmt.Errorf("campaign %s is no test: it is not confirmed", made.ID)
	}
	s.ledger.askCampaign(campaign, time.Now())
	if err := s.call(ctx, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, ""); err != nil {
		return err
	}
	s.ledger.confirmed(campaign)
	return nil
}

// single sends to n destinations in one request.
func (s *submitter) single(ctx context.Context, first, n int) error {
	to := make([]string, n)
	for i := range to {
		to[i] = number(first + i)
	}
	var answer struct {
		Simulation bool
		Results    []struct {
			MessageID *string
			Accepted  bool
		}
	}
	asked := time.Now()
	key := fmt.Sprintf("%s-%d", strings.ReplaceAll(s.run, " ", "-"), first)
	if err := s.call(ctx, http.MethodPost, "/api/message-server/sms/send",
		map[string]any{"phoneNumber": to, "message": s.o.message, "sender": "Fanfare", "simulation": true}, &answer, key); err != nil {
		return err
	}
	if !answer.Simulation {
		return errors.New("the API does not say that a single send is a simulation")
	}
	for _, r := range answer.Results {
		if !r.Accepted || r.MessageID == nil {
			s.refused.Add(1)
			continue
		}
		id, err := schemas.ParseID(*r.MessageID)
		if err != nil {
			return fmt.Errorf("the API has returned the message id %q: %w", *r.MessageID, err)
		}
		s.ledger.askSingle(id, asked)
	}
	return nil
}

// mostTries bounds how often a request is repeated that the API refused for now.
const mostTries = 20

// call makes a request, and repeats it while the API is busy or the key has reached its limit. A request that changes
// something has an idempotency key, so that a repeated one has no effect twice.
func (s *submitter) call(ctx context.Context, method, path string, body, out any, key string) error {
	var b []byte
	kind := "application/json"
	switch v := body.(type) {
	case nil:
	case []byte:
		b, kind = v, "text/csv"
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			return err
		}
	}
	for n := 1; ; n++ {
		if !s.pace.wait(ctx) {
			return ctx.Err()
		}
		wait, err := s.once(ctx, method, path, b, kind, out, key)
		if err == nil || wait == 0 || n == mostTries {
			return err
		}
		if !sleep(ctx, wait) {
			return err
		}
	}
}

// once makes one request. Wait is when it may be repeated after an error; 0: never.
func (s *submitter) once(ctx context.Context, method, path string, body []byte, kind string, out any, key string) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.o.api, "/")+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Api-Key", s.o.key)
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	began := time.Now()
	repeatable := key != "" || method != http.MethodPost
	resp, err := s.http.Do(req)
	if err != nil {
		if repeatable && ctx.Err() == nil {
			wait = time.Second
		}
		return wait, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	s.mu.Lock()
	s.times.add(time.Since(began))
	s.mu.Unlock()
	if resp.StatusCode >= 300 {
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable && repeatable {
			wait = time.Second
			if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
				wait = min(time.Duration(seconds)*time.Second, time.Minute)
			}
		}
		return wait, fmt.Errorf("%s %s: %s %s", method, path, resp.Status, bytes.TrimSpace(answer[:min(len(answer), 500)]))
	}
	if out == nil {
		return 0, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return 0, nil
}
