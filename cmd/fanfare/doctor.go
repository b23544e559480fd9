package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"fanfare/api"
	"fanfare/cmd/fanfare/doctor"
)

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that Fanfare runs on, and say how to mend what is wrong",
		Long: `Check Kafka, Redis, ClickHouse, the store and this machine as fanfare serve would use
them with the same flags: that they can be reached, are the right kind of service and
new enough, that our users have the rights they need, that topics and tables are as
they must be, and that clocks agree. Each line is ok, note (worth knowing) or BAD, with
what to do. The doctor changes nothing. Exit code 0: nothing is BAD.

The clock of Kafka is not compared, because Fanfare does not use it.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	asJSON := cmd.Flags().Bool("json", false, "print the findings as a JSON array")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		all := doctor.Examine(cmd.Context(), cfg.forDoctor())
		if *asJSON {
			enc := json.NewEncoder(p.stdout)
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			if err := enc.Encode(all); err != nil {
				return fmt.Errorf("print findings: %w", err)
			}
		} else {
			doctor.Print(p.stdout, all)
		}
		if doctor.AnyBad(all) {
			return errReported
		}
		return nil
	}
	return cmd
}

// examine returns the doctor's findings about this process, for the API.
func (w *wiring) examine(ctx context.Context) []api.Finding {
	all := doctor.Examine(ctx, w.cfg.forDoctor())
	out := make([]api.Finding, len(all))
	for i, f := range all {
		out[i] = api.Finding{Service: f.Service, Level: string(f.Level), Found: f.Found, Fix: f.Fix}
	}
	return out
}

// forDoctor returns what the doctor examines: what fanfare serve would use with these settings.
func (c Config) forDoctor() doctor.Config {
	return doctor.Config{
		Config: c.services(),
		Uses: doctor.Uses{
			Data: c.keptInData(), Redis: c.needs(needRedis), Store: c.needsStore(), Statistics: c.needs(needAnalytics), Carrier: c.has("sender"),
		},
		Data: c.Data, HTTP: c.HTTP, Prefix: c.Prefix, Schema: c.schemaName(), Replication: c.Replication, CarrierSim: c.CarrierSim,
		DefaultRoute: simRoute,
	}
}
