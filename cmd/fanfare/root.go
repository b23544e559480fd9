package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/lmittmann/tint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fanfare/api"
	"fanfare/cmd/fanfare/remote"
	"fanfare/cmd/fanfare/services"
)

// program holds what every command needs.
type program struct {
	environ        []string
	stdout, stderr io.Writer
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// newRoot returns the tree of commands.
func newRoot(args, environ []string, stdout, stderr io.Writer) (*cobra.Command, error) {
	p := &program{environ, stdout, stderr}
	root := &cobra.Command{
		Use:   "fanfare",
		Short: "Send campaigns by SMS, and know what happened to every single message",
		Long: `Fanfare sends campaigns: one message to up to a million people.

  fanfare demo                      the whole product on this machine, with a demo campaign
  fanfare serve                     every role in this process, nothing else installed
  fanfare serve --roles=sender ...  one role, on real Kafka, Redis, ClickHouse and Postgres
  fanfare campaign list             ask a server (--server and --key, or FANFARE_SERVER and FANFARE_KEY)

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
	root.AddCommand(p.serveCommand(), p.demoCommand(), p.migrateCommand(), p.topicsCommand(), p.doctorCommand(), p.restoreCommand(), p.rebuildCommand(), p.readyCommand(),
		p.versionCommand())
	commands, err := p.remoteCommands(args)
	if err != nil {
		return nil, err
	}
	root.AddCommand(commands...)
	return root, nil
}

// remoteCommands are the commands that ask a server. The commands for tenants, keys and people use the store under
// --data unless a server is named: that needs no server, and creates the first tenant, key and person.
func (p *program) remoteCommands(args []string) ([]*cobra.Command, error) {
	getenv := func(name string) string {
		for _, line := range p.environ {
			if value, ok := strings.CutPrefix(line, name+"="); ok {
				return value
			}
		}
		return ""
	}
	document, err := api.OpenAPI()
	if err != nil {
		return nil, err
	}
	setup := remote.Setup{
		OpenAPI: document, Getenv: getenv, Stdin: os.Stdin, Stdout: p.stdout, Progress: p.stderr, Terminal: isTerminal(p.stderr),
		Usage: func(err error) error { return usageError{err} },
	}
	named := getenv("FANFARE_SERVER") != "" || slices.ContainsFunc(args, func(a string) bool { return a == "--server" || strings.HasPrefix(a, "--server=") })
	var local []*cobra.Command
	if !named {
		local = []*cobra.Command{p.tenantsCommand(), p.keysCommand(), p.usersCommand()}
		setup.Without = []string{"tenant", "key", "user"}
	}
	commands, err := remote.Commands(setup)
	return append(local, commands...), err
}

// config reads the settings of cmd.
func (p *program) config(cmd *cobra.Command) (Config, error) {
	cfg, err := loadConfig(cmd.Flags(), p.environ)
	if err != nil {
		return cfg, usageError{err}
	}
	for _, name := range cfg.unknown {
		fmt.Fprintf(p.stderr, "fanfare: %s is ignored: there is no such setting; settings are named as the flags (fanfare serve --help), such as FANFARE_SIM_RATE\n", name)
	}
	return cfg, nil
}

// logger returns the logger of the process and of the libraries that have one of their own.
func (p *program) logger(cfg Config) (*slog.Logger, error) {
	log, err := p.newLogger(cfg)
	if err == nil {
		services.LogRedis(log)
	}
	return log, err
}

// newLogger writes to stderr: text with colours on a terminal, JSON elsewhere.
func (p *program) newLogger(cfg Config) (*slog.Logger, error) {
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

// buildInfo is a metric that is always 1 and says by its label which version runs.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "fanfare_build_info", Help: "Always 1. The label says which version runs.", ConstLabels: prometheus.Labels{"version": version()},
	})
	g.Set(1)
	return g
}

// exactArgs wants exactly these arguments. Its error names them.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usageError{fmt.Errorf("%s wants %s, got %d argument(s)", cmd.CommandPath(), strings.Join(names, " and "), len(args))}
	}
}

// commandName returns the name of a command without the program's, such as `keys create`.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// withStore runs f on the store, for the command of that name. It brings the tables up to date first, unless a running
// process uses the data directory and with it the store: that process has done so.
func (p *program) withStore(ctx context.Context, cfg Config, command string, f func(context.Context, *wiring) error) error {
	log, err := p.logger(cfg)
	if err != nil {
		return err
	}
	w := newWiring(cfg, log)
	defer w.close()
	if err := w.reach(ctx, needStore); err != nil {
		return err
	}
	if cfg.Store != "" {
		err = w.openStore(ctx)
	} else {
		err = w.shareData(ctx, command)
	}
	if err != nil {
		return err
	}
	return f(ctx, w)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
