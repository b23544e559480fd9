package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"fanfare/api/store"
)

func (p *program) tenantsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "tenants", Short: "Create and list tenants"}
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a tenant that can send at once; prints its id",
		Long: `Create a usable tenant: campaigns enabled, EUR, sender id FANFARE, the simulated
carrier as its route unless --route names another, prices sms 0.05, rcs 0.08, whatsapp 0.15, unlimited credit, at most
10 active campaigns of 1,000,000 contacts and 3 segments a message.

Works before and while fanfare serve runs on the same --data or --store.`,
		Args: exactArgs("the NAME of the tenant"),
	}
	region := create.Flags().String("region", "IT", "country of numbers without a country code, ISO 3166-1 alpha-2")
	zone := create.Flags().String("timezone", "", "time zone of its schedules, such as Europe/Rome (default: the region's)")
	route := create.Flags().String("route", "", "route of the campaigns and single sends that name none (default: sim, the simulated carrier)")
	p.onStore(create, func(ctx context.Context, s *store.Store, args []string) error {
		t, err := s.CreateTenant(ctx, store.TenantSpec{Name: args[0], Region: strings.ToUpper(*region), Timezone: *zone, Route: *route})
		if err != nil {
			return fmt.Errorf("create tenant: %w", err)
		}
		_, err = fmt.Fprintln(p.stdout, t.ID)
		return err
	})
	list := &cobra.Command{Use: "list", Short: "List tenants", Args: exactArgs()}
	p.onStore(list, func(ctx context.Context, s *store.Store, _ []string) error {
		tenants, err := s.Tenants(ctx)
		if err != nil {
			return fmt.Errorf("list tenants: %w", err)
		}
		for _, t := range tenants {
			fmt.Fprintf(p.stdout, "%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Region, t.Timezone)
		}
		return nil
	})
	cmd.AddCommand(create, list)
	return cmd
}

// onStore sets what cmd does: it calls do with the store. It adds the flags that say where the store is.
func (p *program) onStore(cmd *cobra.Command, do func(ctx context.Context, s *store.Store, args []string) error) {
	connectionFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		return p.withStore(cmd.Context(), cfg, commandName(cmd), func(ctx context.Context, w *wiring) error { return do(ctx, w.store, args) })
	}
}

// findTenant finds a tenant by its id or its name.
func findTenant(ctx context.Context, s *store.Store, ref string) (store.Tenant, error) {
	tenants, err := s.Tenants(ctx)
	if err != nil {
		return store.Tenant{}, fmt.Errorf("find tenant: %w", err)
	}
	var names []string
	for _, t := range tenants {
		if t.ID == ref || t.Name == ref {
			return t, nil
		}
		names = append(names, fmt.Sprintf("%q", t.Name))
	}
	if len(names) == 0 {
		return store.Tenant{}, fmt.Errorf("there is no tenant yet: create one with fanfare tenants create NAME")
	}
	return store.Tenant{}, fmt.Errorf("there is no tenant %q; there are %s", ref, strings.Join(names, ", "))
}
