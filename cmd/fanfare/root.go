package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// program is what every command has.
type program struct {
	environ        []string
	stdout, stderr io.Writer
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// newRoot returns the tree of commands.
func newRoot(environ []string, stdout, stderr io.Writer) *cobra.Command {
	p := &program{environ, stdout, stderr}
	root := &cobra.Command{
		Use:   "fanfare",
		Short: "Send campaigns by SMS, RCS, WhatsApp and voice, and know what happened to every single message",
		Long: `Fanfare sends campaigns: one message to up to a million people.

  fanfare demo                      the whole product on this machine, with a demo campaign
  fanfare serve                     every role in this process, nothing else installed
  fanfare serve --roles=sender ...  one role, on real Kafka, Redis, ClickHouse and Postgres

Settings come from flags, from FANFARE_* variables of the same names, and from the file given by --config.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
			if inWords := accepts(invalid.GetFlag(), invalid.GetValue()); inWords != nil {
				err = fmt.Errorf("--%s: %w", invalid.GetFlag().Name, inWords)
			}
		}
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(p.serveCommand(), p.demoCommand(), p.migrateCommand(), p.topicsCommand(), p.doctorCommand(), p.readyCommand(),
		p.tenantsCommand(), p.keysCommand(), p.versionCommand())
	return root
}

// config reads the settings of cmd.
func (p *program) config(cmd *cobra.Command) (Config, error) {
	cfg, err := loadConfig(cmd.Flags(), p.environ)
	if err != nil {
		return cfg, usageError{err}
	}
	for _, name := range cfg.unknown {
		fmt.Fprintf(p.stderr, "fanfare: %s says nothing: settings are named as the flags (fanfare serve --help), such as FANFARE_SIM_RATE\n", name)
	}
	return cfg, nil
}

// logger writes to stderr: text with colours on a terminal, JSON elsewhere.
func (p *program) logger(cfg Config) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", cfg.LogLevel)}
	}
	terminal := isTerminal(p.stderr)
	switch {
	case cfg.LogFormat == "json" || cfg.LogFormat == "" && !terminal:
		return slog.New(slog.NewJSONHandler(p.stderr, &slog.HandlerOptions{Level: level})), nil
	case cfg.LogFormat == "text" || cfg.LogFormat == "":
		return slog.New(tint.NewTextHandler(p.stderr, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !terminal})), nil
	default:
		return nil, usageError{fmt.Errorf("--log-format %q: want text or json", cfg.LogFormat)}
	}
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.stdout, "fanfare", version())
			return err
		},
	}
}

// version is the module's version, and the commit when it was built from a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	parts := []string{strings.Trim(info.Main.Version, "()"), info.GoVersion}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			parts = append(parts, s.Value[:min(12, len(s.Value))])
		}
	}
	return strings.Join(parts, " ")
}

// exactArgs names what is missing, instead of counting.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usageError{fmt.Errorf("%s wants %s, got %d argument(s)", cmd.CommandPath(), strings.Join(names, " and "), len(args))}
	}
}

// withStore runs f on the control plane, migrated.
func (p *program) withStore(ctx context.Context, cfg Config, f func(context.Context, *wiring) error) error {
	log, err := p.logger(cfg)
	if err != nil {
		return err
	}
	w := newWiring(cfg, log)
	defer w.close()
	if err := w.reach(ctx, needStore); err != nil {
		return err
	}
	if err := w.openStore(ctx); err != nil {
		return err
	}
	return f(ctx, w)
}

// isTerminal reports whether people read what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
