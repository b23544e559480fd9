package main

import (
	"context"
	"fmt"
	"slices"
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
carrier as its route, prices sms 0.05, rcs 0.08, whatsapp 0.15, unlimited credit, at most
10 active campaigns of 1,000,000 contacts and 3 segments a message.

Works before and while fanfare serve runs on the same --data or --store.`,
		Args: exactArgs("the NAME of the tenant"),
	}
	connectionFlags(create.Flags())
	region := create.Flags().String("region", "IT", "country of numbers without a country code, ISO 3166-1 alpha-2")
	zone := create.Flags().String("timezone", "", "time zone of its schedules, such as Europe/Rome (default: the region's)")
	create.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		return p.withStore(cmd.Context(), cfg, func(ctx context.Context, w *wiring) error {
			t, err := w.store.CreateTenant(ctx, store.TenantSpec{Name: args[0], Region: strings.ToUpper(*region), Timezone: *zone})
			if err != nil {
				return fmt.Errorf("create tenant: %w", err)
			}
			_, err = fmt.Fprintln(p.stdout, t.ID)
			return err
		})
	}
	list := &cobra.Command{Use: "list", Short: "List tenants", Args: exactArgs()}
	connectionFlags(list.Flags())
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		return p.withStore(cmd.Context(), cfg, func(ctx context.Context, w *wiring) error {
			tenants, err := w.store.Tenants(ctx)
			if err != nil {
				return fmt.Errorf("list tenants: %w", err)
			}
			for _, t := range tenants {
				fmt.Fprintf(p.stdout, "%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Region, t.Timezone)
			}
			return nil
		})
	}
	cmd.AddCommand(create, list)
	return cmd
}

func (p *program) keysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Create API keys"}
	create := &cobra.Command{
		Use:   "create --tenant NAME",
		Short: "Create an API key and print it, once; only its hash is kept",
		Args:  exactArgs(),
	}
	connectionFlags(create.Flags())
	tenant := create.Flags().String("tenant", "", "name or id of the tenant")
	name := create.Flags().String("name", "", "what the key is for")
	scopes := create.Flags().StringSlice("scope", nil, "rights of the key: "+joinScopes(store.Scopes)+" (default: all but admin)")
	test := create.Flags().Bool("test", false, "a key whose messages reach only the simulated carrier")
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		if *tenant == "" {
			return usageError{fmt.Errorf("keys create: name the tenant with --tenant NAME (fanfare tenants list shows them)")}
		}
		var wanted []store.Scope
		for _, s := range *scopes {
			if !slices.Contains(store.Scopes, store.Scope(s)) {
				return usageError{fmt.Errorf("--scope: there is no scope %q; scopes are %s", s, joinScopes(store.Scopes))}
			}
			wanted = append(wanted, store.Scope(s))
		}
		return p.withStore(cmd.Context(), cfg, func(ctx context.Context, w *wiring) error {
			t, err := findTenant(ctx, w.store, *tenant)
			if err != nil {
				return err
			}
			_, secret, err := w.store.CreateKey(ctx, t.ID, *name, wanted, *test)
			if err != nil {
				return fmt.Errorf("create key: %w", err)
			}
			_, err = fmt.Fprintln(p.stdout, secret)
			return err
		})
	}
	cmd.AddCommand(create)
	return cmd
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

func joinScopes(scopes []store.Scope) string {
	var b strings.Builder
	for i, s := range scopes {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}
