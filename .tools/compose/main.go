// Command compose checks a compose file and a Dockerfile without an engine: the compose file by its schema, with every
// profile and every variable filled in, the Dockerfile by the parser and the linter of BuildKit.
//
//	compose COMPOSE.yaml VARIABLES.env DOCKERFILE
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/sirupsen/logrus"
)

func main() {
	logrus.SetOutput(io.Discard) // warnings of the loads that must fail
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: compose COMPOSE.yaml VARIABLES.env DOCKERFILE")
		os.Exit(2)
	}
	problems := append(compose(os.Args[1], os.Args[2]), dockerfile(os.Args[3])...)
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

func compose(path, variables string) (problems []string) {
	text, err := os.ReadFile(variables)
	if err != nil {
		return []string{err.Error()}
	}
	var env []string
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			if value == "" {
				value = "secret"
			}
			env = append(env, name+"="+value)
		}
	}
	load := func(env []string) (err error) {
		opts, err := cli.NewProjectOptions([]string{path}, cli.WithEnv(env), cli.WithProfiles([]string{"*"}))
		if err != nil {
			return err
		}
		project, err := opts.LoadProject(context.Background())
		if err != nil {
			return err
		}
		for name, s := range project.Services {
			if tag := s.Image[strings.LastIndex(s.Image, ":")+1:]; !strings.Contains(s.Image, ":") || tag == "latest" {
				problems = append(problems, fmt.Sprintf("%s: service %s: image %q names no version", path, name, s.Image))
			}
			if s.Deploy == nil || s.Deploy.Resources.Limits == nil {
				problems = append(problems, fmt.Sprintf("%s: service %s has no limits", path, name))
			}
			for _, v := range s.Volumes {
				if v.Type == "bind" {
					if _, err := os.Stat(v.Source); err != nil {
						problems = append(problems, fmt.Sprintf("%s: service %s: %v", path, name, err))
					}
				}
			}
		}
		fmt.Printf("%s: %d services\n", path, len(project.Services))
		return nil
	}
	if err := load(env); err != nil {
		return append(problems, err.Error())
	}
	// A secret that was forgotten must stop it.
	for _, secret := range []string{"FANFARE_ID_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "CLICKHOUSE_PASSWORD"} {
		without := slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, secret+"=") })
		if err := load(without); err == nil {
			problems = append(problems, fmt.Sprintf("%s: loads without %s", path, secret))
		}
	}
	return problems
}

func dockerfile(path string) (problems []string) {
	f, err := os.Open(path)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", path, err)}
	}
	for _, w := range parsed.Warnings {
		problems = append(problems, fmt.Sprintf("%s: %s", path, w.Short))
	}
	lint := linter.New(&linter.Config{Warn: func(name, _, _, msg string, at []parser.Range) {
		problems = append(problems, fmt.Sprintf("%s:%v: %s: %s", path, at, name, msg))
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return append(problems, fmt.Sprintf("%s: %v", path, err))
	}
	fmt.Printf("%s: %d stages\n", path, len(stages))
	last := stages[len(stages)-1]
	user := ""
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.RunCommand:
			problems = append(problems, path+": RUN in the last stage, which has no shell")
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				problems = append(problems, path+": ENTRYPOINT wants a shell")
			}
		case *instructions.CmdCommand:
			if c.PrependShell {
				problems = append(problems, path+": CMD wants a shell")
			}
		case *instructions.HealthCheckCommand:
			if c.Health == nil || len(c.Health.Test) == 0 || c.Health.Test[0] != "CMD" {
				problems = append(problems, path+": HEALTHCHECK wants a shell")
			}
		}
	}
	if user == "" || strings.HasPrefix(user, "0") || user == "root" {
		problems = append(problems, fmt.Sprintf("%s: USER is %q", path, user))
	}
	return problems
}
