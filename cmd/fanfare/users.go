package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/spf13/cobra"

	"fanfare/api/store"
	"fanfare/schemas"
)

// linkLife is how long a printed log-in link works.
const linkLife = 24 * time.Hour

// minPassword is the shortest password, in bytes.
const minPassword = 10

func (p *program) usersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "users", Short: "Create, list, change and disable people who use the console"}
	cmd.AddCommand(p.createUser(), p.listUsers(), p.changeUser(), p.userLink())
	return cmd
}

func (p *program) createUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create EMAIL --name NAME --tenant TENANT --role ROLE",
		Short: "Add a person and print a link that logs the person in once",
		Long: `Add a person to the console. Without --password-stdin the command prints a link that logs
the person in once, within 24 hours; add the console's address before it. Roles: viewer sees,
editor makes campaigns and contacts, approver confirms campaigns. --operator makes a person who
runs the installation and sees every tenant.`,
		Args: exactArgs("EMAIL"),
	}
	name := cmd.Flags().String("name", "", "what the person is called; default the e-mail address")
	tenant := cmd.Flags().String("tenant", "", "name or id of the tenant")
	role := cmd.Flags().String("role", "editor", "viewer, editor or approver")
	operator := cmd.Flags().Bool("operator", false, "runs the installation: every tenant, every right")
	stdin := cmd.Flags().Bool("password-stdin", false, "read the password from the standard input")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *tenant == "" && !*operator {
			return usageError{errors.New("--tenant or --operator is needed")}
		}
		return nil
	}
	p.onStore(cmd, func(ctx context.Context, s *store.Store, args []string) error {
		u := store.User{Email: args[0], Name: *name, Operator: *operator}
		if u.Name == "" {
			u.Name = args[0]
		}
		if *stdin {
			hash, err := readPassword(cmd.InOrStdin())
			if err != nil {
				return err
			}
			u.Password = hash
		}
		var t store.Tenant
		var err error
		if *tenant != "" {
			if t, err = findTenant(ctx, s, *tenant); err != nil {
				return err
			}
		}
		if u, err = s.CreateUser(ctx, u); err != nil {
			return err
		}
		if t.ID != "" {
			if err := s.SetMembership(ctx, u.ID, t.ID, store.Role(*role)); err != nil {
				return err
			}
		}
		if *stdin {
			_, err = fmt.Fprintln(p.stdout, u.ID)
			return err
		}
		return printLink(ctx, p.stdout, s, u.ID)
	})
	return cmd
}

func (p *program) listUsers() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List people: id, e-mail, name, rights, last log-in (UTC), separated by tabs",
		Args:  exactArgs(),
	}
	tenant := cmd.Flags().String("tenant", "", "only people of this tenant")
	p.onStore(cmd, func(ctx context.Context, s *store.Store, _ []string) error {
		id := ""
		if *tenant != "" {
			t, err := findTenant(ctx, s, *tenant)
			if err != nil {
				return err
			}
			id = t.ID
		}
		users, err := s.Users(ctx, id)
		if err != nil {
			return fmt.Errorf("list users: %w", err)
		}
		for i := range users {
			u := &users[i]
			rights := []string{}
			if u.Operator {
				rights = append(rights, string(store.RoleOperator))
			}
			members, err := s.Memberships(ctx, u.ID)
			if err != nil {
				return fmt.Errorf("list users: %w", err)
			}
			for _, m := range members {
				rights = append(rights, m.Tenant+"="+string(m.Role))
			}
			if u.Disabled {
				rights = []string{"disabled"}
			}
			fmt.Fprintf(p.stdout, "%s\t%s\t%s\t%s\t%s\n", u.ID, u.Email, u.Name, strings.Join(rights, ","), minute(u.Seen))
		}
		return nil
	})
	return cmd
}

func (p *program) changeUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update EMAIL",
		Short: "Change a person's name, password, role, or disable the person",
		Args:  exactArgs("EMAIL"),
	}
	name := cmd.Flags().String("name", "", "a new name")
	tenant := cmd.Flags().String("tenant", "", "the tenant of --role")
	role := cmd.Flags().String("role", "", "viewer, editor, approver, or none")
	operator := cmd.Flags().Bool("operator", false, "runs the installation")
	disabled := cmd.Flags().Bool("disabled", false, "may not log in; open sessions end")
	stdin := cmd.Flags().Bool("password-stdin", false, "read a new password from the standard input; open sessions end")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if (*tenant == "") != (*role == "") {
			return usageError{errors.New("--tenant and --role belong together")}
		}
		return nil
	}
	p.onStore(cmd, func(ctx context.Context, s *store.Store, args []string) error {
		u, err := s.UserByEmail(ctx, args[0])
		if err != nil {
			return err
		}
		if *name != "" {
			u.Name = *name
		}
		if cmd.Flags().Changed("operator") {
			u.Operator = *operator
		}
		if cmd.Flags().Changed("disabled") {
			u.Disabled = *disabled
		}
		if *stdin {
			if u.Password, err = readPassword(cmd.InOrStdin()); err != nil {
				return err
			}
			u.Epoch++
		}
		if u, err = s.ChangeUser(ctx, u); err != nil {
			return err
		}
		if *role == "" {
			return nil
		}
		t, err := findTenant(ctx, s, *tenant)
		if err != nil {
			return err
		}
		given := store.Role(*role)
		if given == "none" {
			given = ""
		}
		return s.SetMembership(ctx, u.ID, t.ID, given)
	})
	return cmd
}

func (p *program) userLink() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "link EMAIL",
		Short: "Print a link that logs a person in once, within 24 hours",
		Args:  exactArgs("EMAIL"),
	}
	p.onStore(cmd, func(ctx context.Context, s *store.Store, args []string) error {
		u, err := s.UserByEmail(ctx, args[0])
		if err != nil {
			return err
		}
		return printLink(ctx, p.stdout, s, u.ID)
	})
	return cmd
}

func printLink(ctx context.Context, out io.Writer, s *store.Store, user string) error {
	secret, err := s.CreateLoginLink(ctx, user, linkLife)
	if err != nil {
		return fmt.Errorf("create log-in link: %w", err)
	}
	_, err = fmt.Fprintf(out, "/login/%s\n", secret)
	return err
}

// readPassword reads one line and returns its argon2id hash.
func readPassword(in io.Reader) (hash string, err error) {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if len(line) < minPassword {
		return "", usageError{fmt.Errorf("the password has %d bytes; want at least %d", len(line), minPassword)}
	}
	return argon2id.CreateHash(line, argon2id.DefaultParams)
}

// demoEmail is the person that the demo logs in.
const demoEmail = "demo@fanfare.example"

// demoLogin is a link that logs the demo's person in once. The person is made the first time, as an operator: the demo
// shows everything.
func demoLogin(ctx context.Context, s *store.Store, base string) (string, error) {
	u, err := s.UserByEmail(ctx, demoEmail)
	if errors.Is(err, schemas.ErrNotFound) {
		u, err = s.CreateUser(ctx, store.User{Email: demoEmail, Name: "Demo", Operator: true})
	}
	if err != nil {
		return "", fmt.Errorf("demo user: %w", err)
	}
	secret, err := s.CreateLoginLink(ctx, u.ID, linkLife)
	if err != nil {
		return "", fmt.Errorf("demo log-in link: %w", err)
	}
	return base + "/login/" + secret, nil
}
