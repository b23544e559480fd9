package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fanfare/api/store"
	"fanfare/schemas"
)

func (p *program) keysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Create, list and revoke API keys"}
	cmd.AddCommand(p.createKey(), p.listKeys(), p.revokeKey())
	return cmd
}

func (p *program) createKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create --tenant NAME",
		Short: "Create an API key and print it, once; only its hash is kept",
		Args:  exactArgs(),
	}
	tenant := tenantFlag(cmd)
	name := cmd.Flags().String("name", "", "what the key is for")
	scopes := cmd.Flags().StringSlice("scope", nil, "rights of the key: "+joinScopes(store.Scopes)+" (default: all but admin)")
	test := cmd.Flags().Bool("test", false, "a key whose messages reach only the simulated carrier")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, s := range *scopes {
			if !slices.Contains(store.Scopes, store.Scope(s)) {
				return usageError{fmt.Errorf("--scope: there is no scope %q; scopes are %s", s, joinScopes(store.Scopes))}
			}
		}
		return needTenant(cmd, *tenant)
	}
	p.onStore(cmd, func(ctx context.Context, s *store.Store, _ []string) error {
		t, err := findTenant(ctx, s, *tenant)
		if err != nil {
			return err
		}
		var wanted []store.Scope
		for _, s := range *scopes {
			wanted = append(wanted, store.Scope(s))
		}
		_, secret, err := s.CreateKey(ctx, t.ID, *name, wanted, *test)
		if err != nil {
			return fmt.Errorf("create key: %w", err)
		}
		_, err = fmt.Fprintln(p.stdout, secret)
		return err
	})
	return cmd
}

func (p *program) listKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list --tenant NAME",
		Short: "List a tenant's API keys, without their secrets",
		Long: `List a tenant's API keys, revoked ones too, a line each, separated by tabs: id, the last
four characters of the secret, what it is for, live or test, scopes, created, last used (to
the minute), revoked. Times are UTC; - stands for never.`,
		Args: exactArgs(),
	}
	tenant := tenantFlag(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return needTenant(cmd, *tenant) }
	p.onStore(cmd, func(ctx context.Context, s *store.Store, _ []string) error {
		t, err := findTenant(ctx, s, *tenant)
		if err != nil {
			return err
		}
		keys, err := s.Keys(ctx, t.ID)
		if err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		for _, k := range keys {
			kind := "live"
			if k.Test {
				kind = "test"
			}
			fmt.Fprintf(p.stdout, "%s\t…%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Hint, k.Name, kind, joinScopes(k.Scopes), minute(k.Created), minute(k.Used), minute(k.Revoked))
		}
		return nil
	})
	return cmd
}

func (p *program) revokeKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke KEY-ID",
		Short: "Revoke an API key, for ever; running processes refuse it within two seconds",
		Args:  exactArgs("the KEY-ID, such as fanfare keys list shows"),
	}
	p.onStore(cmd, func(ctx context.Context, s *store.Store, args []string) error {
		tenants, err := s.Tenants(ctx)
		if err != nil {
			return fmt.Errorf("revoke key: %w", err)
		}
		for _, t := range tenants {
			err := s.RevokeKey(ctx, t.ID, args[0], 0)
			if errors.Is(err, schemas.ErrNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("revoke key: %w", err)
			}
			_, err = fmt.Fprintf(p.stdout, "%s of %q is revoked\n", args[0], t.Name)
			return err
		}
		return fmt.Errorf("there is no key %q; fanfare keys list --tenant NAME shows the ids (a key's own text is not its id)", withoutSecret(args[0]))
	})
	return cmd
}

// withoutSecret hides a key that was given instead of its id, so that it does not get into terminals and logs.
func withoutSecret(id string) string {
	if strings.HasPrefix(id, "ff_") {
		return "ff_…"
	}
	return id
}

func tenantFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("tenant", "", "name or id of the tenant")
}

func needTenant(cmd *cobra.Command, tenant string) error {
	if tenant == "" {
		return usageError{fmt.Errorf("keys %s: name the tenant with --tenant NAME (fanfare tenants list shows them)", cmd.Name())}
	}
	return nil
}

func minute(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04Z")
}

func joinScopes(scopes []store.Scope) string {
	texts := make([]string, len(scopes))
	for i, s := range scopes {
		texts[i] = string(s)
	}
	return strings.Join(texts, ", ")
}
