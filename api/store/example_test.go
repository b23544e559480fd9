package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
)

// From an empty file to a confirmed campaign whose audience is frozen.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "store")
	check(err)
	defer func() { _ = os.RemoveAll(dir) }()

	cfg := store.Config{DSN: filepath.Join(dir, "store.db")}
	check(store.Migrate(ctx, cfg))
	s, err := store.Open(ctx, cfg)
	check(err)
	defer func() { _ = s.Close() }()

	tenant, err := s.CreateTenant(ctx, store.TenantSpec{Name: "acme"})
	check(err)
	list, err := s.CreateList(ctx, tenant.ID, "customers", false)
	check(err)
	file := "phone;first_name\n333 1234567;Anna\n+44 7400 123456;Bob\n3331234567;Anna again\nnobody;Carl\n"
	report, err := s.Import(ctx, tenant.ID, list.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader(file), nil)
	check(err)
	fmt.Println(&report)
	fmt.Printf("line %d, %s: %s\n", report.Rejected[0].Line, report.Rejected[0].Column, report.Rejected[0].Value)

	user := store.Cause{Actor: schemas.ActorUser, By: "key_example"}
	c, err := s.CreateCampaign(ctx, store.Campaign{Tenant: tenant.ID, State: schemas.StateConfigured, Spec: store.Spec{
		Name: "Hello", Chain: []schemas.Channel{schemas.ChannelSMS}, Body: "Hi {{first_name}}", Lists: []uint64{list.Number},
	}}, user)
	check(err)
	c, err = s.Confirm(ctx, tenant.ID, c.ID(), c.Version, user, func(on store.Confirmation, c *store.Campaign) (uint64, error) {
		c.State = schemas.StatePreparing
		price, _ := on.Prices.Price(c.Channel(), "", uint64(on.Audience.Eligible), time.Now())
		return uint64(on.Audience.Eligible) * price, nil
	})
	check(err)
	check(s.Freeze(ctx, tenant.ID, c.ID(), c.Version))
	c, err = s.Campaign(ctx, tenant.ID, c.ID())
	check(err)
	fmt.Printf("%s: %s, %d recipients, %d micros reserved\n", c.ID(), schemas.StateName(c.State), c.Total, c.Reserved)
	blobs, err := s.Blobs(ctx, c.FreezeID)
	check(err)
	for _, b := range blobs {
		fmt.Printf("seq %d to %d in %s\n", b.First, b.First+b.Count-1, b.Zone)
	}
	// Output:
	// 4 rows: 2 imported, 0 updated, 0 unchanged, 1 duplicates, 1 refused
	// line 5, phone: nobody
	// camp_10001: preparing, 2 recipients, 100000 micros reserved
	// seq 0 to 0 in Europe/London
	// seq 1 to 1 in Europe/Rome
}

func check(err error) {
	if err != nil {
		fmt.Println("error:", err)
	}
}
