package sim_test

import (
	"context"
	"fmt"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// A message to one of the magic numbers, and what the carrier says of it.
func Example() {
	keys, err := schemas.NewKeys([]byte("sixteen bytes at least"))
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := sim.Open(sim.Config{Keys: keys, Profile: sim.Default()})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()

	n := c.Connector(sim.Options{})
	answered := make(chan struct{})
	err = n.Send(ctx, []carrier.Outbound{{
		Key: keys.Submission(10001, 1, 1), To: "+393990000018", From: "FANFARE",
		Body: carrier.Body{Text: carrier.Text{Body: "Ciao", Segments: 1}},
	}}, func(_ int, r carrier.Result) {
		fmt.Println(r.Outcome)
		close(answered)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-answered
	err = n.Receipts(ctx, func(list []carrier.Receipt) error {
		for _, r := range list {
			fmt.Println(schemas.CodeName(r.Sub), r.To)
		}
		stop()
		return nil // they are durable: the carrier may forget them
	})
	fmt.Println(err, <-ran, c.Close())
	// Output:
	// accepted
	// UNKNOWN_SUBSCRIBER +393990000018
	// <nil> <nil> <nil>
}
