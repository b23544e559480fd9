package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Setup configures the commands.
type Setup struct {
	// OpenAPI is the OpenAPI document of the API.
	OpenAPI []byte
	// Getenv reads FANFARE_SERVER, FANFARE_KEY and FANFARE_TENANT.
	Getenv func(name string) string
	Stdin  io.Reader
	Stdout io.Writer
	// Progress gets the progress of long commands: a bar if it is a Terminal, lines otherwise. Nil shows no progress.
	Progress io.Writer
	Terminal bool
	// Usage marks an error as a mistake in the command line.
	Usage func(error) error
	// Without names nouns that get no command, because the program has a command of that name.
	Without []string
}

// Commands returns one command for each noun of the API.
func Commands(s Setup) ([]*cobra.Command, error) {
	doc, operations, err := read(s.OpenAPI)
	if err != nil {
		return nil, err
	}
	nouns := map[string]*cobra.Command{}
	var out []*cobra.Command
	for _, op := range operations {
		noun, verb := commandName(op.ID)
		if noun == "" || slices.Contains(s.Without, noun) {
			continue
		}
		parent := nouns[noun]
		if parent == nil {
			parent = &cobra.Command{Use: noun, Aliases: []string{noun + "s"}, Short: "On a server: " + plural(noun)}
			parent.PersistentFlags().AddFlagSet(s.common())
			nouns[noun] = parent
			out = append(out, parent)
		}
		parent.AddCommand(s.command(doc, op, verb))
	}
	if parent := nouns["import"]; parent != nil {
		s.importFile(parent)
	}
	return append(out, s.eraseCommand()), nil
}

// plural returns the plural of a noun, with spaces: campaign histories.
func plural(noun string) string {
	noun = strings.ReplaceAll(noun, "-", " ")
	switch {
	case strings.HasSuffix(noun, "s"):
		return noun
	case strings.HasSuffix(noun, "y"):
		return strings.TrimSuffix(noun, "y") + "ies"
	default:
		return noun + "s"
	}
}

// common are the flags of every command.
func (s *Setup) common() *pflag.FlagSet {
	f := pflag.NewFlagSet("remote", pflag.ContinueOnError)
	f.String("server", "", "address of the server (FANFARE_SERVER)")
	f.String("key", "", "API key (FANFARE_KEY)")
	f.String("for-tenant", "", "operators: act for this tenant, by id or name (FANFARE_TENANT)")
	f.StringP("output", "o", "table", "table, json or csv")
	return f
}

// option is a flag that becomes a field of the body or a parameter of the query.
type option struct {
	field string
	of    string // the object that the field is in; "": the body itself
	kind  string
	query bool
	value *string
	flag  string
}

func (s *Setup) command(doc *document, op *operation, verb string) *cobra.Command {
	var args []string
	for _, p := range op.Parameters {
		if p.In == "path" {
			args = append(args, strings.ToUpper(flagName(p.Name)))
		}
	}
	cmd := &cobra.Command{
		Use:   strings.Join(append([]string{verb}, args...), " "),
		Short: op.Summary,
		Long:  strings.TrimSpace(op.Summary + ".\n\n" + op.Description),
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) != len(args) {
				return s.Usage(fmt.Errorf("%s wants %d argument(s), %s; it got %d", cmd.CommandPath(), len(args), strings.Join(args, " "), len(given)))
			}
			return nil
		},
	}
	options := s.options(doc, op, cmd.Flags())
	file := bodyFlag(op, cmd.Flags())
	job := waitingFor(op, cmd)
	var watch *bool
	if verb == "stats" {
		watch = cmd.Flags().Bool("watch", false, "print them again each second until nothing can change")
	}
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, out, err := s.connect(cmd)
		if err != nil {
			return s.Usage(err)
		}
		path := op.path
		for i, p := range pathParameters(op) {
			path = strings.Replace(path, "{"+p+"}", url.PathEscape(given[i]), 1)
		}
		query, body, ctype, err := s.request(op, cmd, options, file)
		if err != nil {
			return s.Usage(err)
		}
		if watch != nil && *watch {
			return watchStats(cmd.Context(), c, path, out)
		}
		if op.ID == "createCampaignAudit" {
			return s.audit(cmd.Context(), c, path, out)
		}
		answer, err := c.do(cmd.Context(), op.method, path, query, body, ctype)
		if err != nil {
			return err
		}
		if job != nil {
			return job.finish(cmd.Context(), s, c, out, answer)
		}
		return out.print(answer)
	}
	return cmd
}

func pathParameters(op *operation) (out []string) {
	for _, p := range op.Parameters {
		if p.In == "path" {
			out = append(out, p.Name)
		}
	}
	return out
}

// options makes the flags of an operation.
func (s *Setup) options(doc *document, op *operation, flags *pflag.FlagSet) (out []*option) {
	add := func(field, describe string, sch *schema, query bool) {
		sch = doc.resolve(sch)
		o := &option{field: field, kind: sch.kind(), query: query, flag: flagName(field)}
		if flags.Lookup(o.flag) != nil || o.flag == "key" || o.flag == "output" || o.flag == "server" {
			o.flag = "with-" + o.flag
		}
		if describe == "" {
			describe = sch.Description
		}
		o.value = flags.String(o.flag, "", strings.TrimSpace(describe+" ("+kindInWords(o.kind)+")"))
		if o.kind == "boolean" {
			flags.Lookup(o.flag).NoOptDefVal = "true"
		}
		out = append(out, o)
	}
	for _, p := range op.Parameters {
		if p.In == "query" {
			add(p.Name, p.Description, p.Schema, true)
		}
	}
	if op.RequestBody != nil {
		if content, ok := op.RequestBody.Content["application/json"]; ok {
			sch := doc.resolve(content.Schema)
			fields := make([]string, 0, len(sch.Properties))
			for name := range sch.Properties {
				fields = append(fields, name)
			}
			slices.Sort(fields)
			for _, name := range fields {
				add(name, sch.Properties[name].Description, sch.Properties[name], false)
			}
			for _, name := range fields {
				if op.method == http.MethodPut && !mergedObjects[name] {
					continue
				}
				out = append(out, doc.partsOf(name, sch.Properties[name], flags)...)
			}
		}
	}
	return out
}

// mergedObjects are the objects of which a change may give some fields. Others are replaced as a whole, so that a flag
// for one field would reset the others.
var mergedObjects = map[string]bool{"care": true}

// partsOf makes a flag of each simple field of an object, such as --care-down-after of the object care.
func (d *document) partsOf(object string, sch *schema, flags *pflag.FlagSet) (out []*option) {
	if sch = d.resolve(sch); sch.kind() != "object" {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(sch.Properties)) {
		part := d.resolve(sch.Properties[name])
		o := &option{field: name, of: object, kind: part.kind(), flag: flagName(object) + "-" + flagName(name)}
		switch o.kind {
		case "string", "integer", "number", "boolean":
		default:
			continue
		}
		if flags.Lookup(o.flag) != nil {
			continue
		}
		o.value = flags.String(o.flag, "", strings.TrimSpace(sch.Properties[name].Description+" ("+kindInWords(o.kind)+")"))
		if o.kind == "boolean" {
			flags.Lookup(o.flag).NoOptDefVal = "true"
		}
		out = append(out, o)
	}
	return out
}

func kindInWords(kind string) string {
	switch kind {
	case "string":
		return "text"
	case "integer", "number", "boolean":
		return kind
	case "array":
		return "values separated by commas, or JSON"
	}
	return "text or JSON"
}

func bodyFlag(op *operation, flags *pflag.FlagSet) *string {
	if op.RequestBody == nil {
		return nil
	}
	return flags.StringP("file", "f", "", "read the body from this file, - for the standard input; flags change its fields")
}

// request makes the query and the body from the flags that the user gave.
func (s *Setup) request(op *operation, cmd *cobra.Command, options []*option, file *string) (url.Values, io.Reader, string, error) {
	query, fields := url.Values{}, map[string]any{}
	var raw []byte
	if file != nil && *file != "" {
		var err error
		if *file == "-" {
			raw, err = io.ReadAll(s.Stdin)
		} else {
			raw, err = os.ReadFile(*file)
		}
		if err != nil {
			return nil, nil, "", err
		}
	}
	if op.RequestBody != nil {
		if _, isJSON := op.RequestBody.Content["application/json"]; !isJSON || op.RequestBody.Content["text/csv"].Schema != nil {
			return s.upload(op, cmd, options, raw, *file)
		}
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &fields); err != nil {
				return nil, nil, "", fmt.Errorf("--file %s: %w", *file, err)
			}
		}
	}
	for _, o := range options {
		if !cmd.Flags().Changed(o.flag) {
			continue
		}
		if o.query {
			query.Set(o.field, *o.value)
			continue
		}
		value, err := o.json()
		if err != nil {
			return nil, nil, "", err
		}
		if o.of == "" {
			fields[o.field] = value
			continue
		}
		object, ok := fields[o.of].(map[string]any)
		if !ok {
			if there := fields[o.of]; there != nil {
				return nil, nil, "", fmt.Errorf("--%s: --%s is not a JSON object; give one of the two flags", o.flag, flagName(o.of))
			}
			object = map[string]any{}
			fields[o.of] = object
		}
		object[o.field] = value
	}
	if op.RequestBody == nil || len(fields) == 0 && !op.RequestBody.Required {
		return query, nil, "", nil
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, nil, "", err
	}
	return query, bytes.NewReader(body), "application/json", nil
}

// upload sends a file unchanged.
func (s *Setup) upload(_ *operation, cmd *cobra.Command, options []*option, raw []byte, name string) (url.Values, io.Reader, string, error) {
	if name == "" {
		return nil, nil, "", errors.New("--file is needed: the file to send")
	}
	query := url.Values{}
	for _, o := range options {
		if o.query && cmd.Flags().Changed(o.flag) {
			query.Set(o.field, *o.value)
		}
	}
	ctype := "text/csv"
	if strings.HasSuffix(name, ".json") || len(raw) > 0 && (raw[0] == '[' || raw[0] == '{') {
		ctype = "application/json"
	}
	return query, bytes.NewReader(raw), ctype, nil
}

// json converts the value of a flag to the type that the API expects.
func (o *option) json() (any, error) {
	v := *o.value
	switch o.kind {
	case "string":
		if v == "null" {
			return nil, nil
		}
		return v, nil
	case "integer", "number":
		if v == "null" {
			return nil, nil
		}
		if n := json.Number(v); json.Valid([]byte(v)) && v != "" {
			return n, nil
		}
		return nil, fmt.Errorf("--%s %q: want a number", o.flag, v)
	case "boolean":
		if v != "true" && v != "false" {
			return nil, fmt.Errorf("--%s %q: want true or false", o.flag, v)
		}
		return v == "true", nil
	case "array":
		if strings.HasPrefix(v, "[") {
			return asJSON(o.flag, v)
		}
		out := []string{}
		for word := range strings.SplitSeq(v, ",") {
			if word = strings.TrimSpace(word); word != "" {
				out = append(out, word)
			}
		}
		return out, nil
	}
	if strings.HasPrefix(v, "{") || strings.HasPrefix(v, "[") {
		return asJSON(o.flag, v)
	}
	return v, nil
}

func asJSON(flag, v string) (any, error) {
	var out any
	if err := json.Unmarshal([]byte(v), &out); err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return out, nil
}

// connect reads the common flags.
func (s *Setup) connect(cmd *cobra.Command) (*client, *printer, error) {
	read := func(flag, env string) string {
		if v, err := cmd.Flags().GetString(flag); err == nil && v != "" {
			return v
		}
		return s.Getenv(env)
	}
	format, _ := cmd.Flags().GetString("output")
	if format != "table" && format != "json" && format != "csv" {
		return nil, nil, fmt.Errorf("--output %q: want table, json or csv", format)
	}
	c, err := newClient(read("server", "FANFARE_SERVER"), read("key", "FANFARE_KEY"), read("for-tenant", "FANFARE_TENANT"))
	return c, &printer{s.Stdout, format}, err
}
