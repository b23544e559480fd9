package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// mergeFields compares the merge fields of a campaign's texts with the fields of the contacts of its lists. A field
// that no contact has is a problem; for a draft it is only a warning, because contacts may still be added. A field that
// some contacts lack is a warning. Without texts or lists, or with empty lists, it compares nothing.
func (s *server) mergeFields(ctx context.Context, tenant string, spec *store.Spec, draft bool) (warnings []string, err error) {
	used := fieldsOf(spec)
	if len(spec.Lists) == 0 || len(used) == 0 {
		return nil, nil
	}
	counts, err := s.Store.ListFields(ctx, tenant, spec.Lists)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, nil // the count of the audience reports the deleted list
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if !counts.Complete || counts.Members == 0 {
		return nil, nil
	}
	var unknown problem.List
	for _, f := range used {
		if f.Name == text.FieldPhone || f.Column == text.FieldPhone {
			continue // every contact has a value
		}
		have := max(counts.Names[f.Name], counts.Names[f.Column])
		switch {
		case have == 0:
			unknown = append(unknown, unknownField(f.field, f.Field, counts.Names))
		case have < counts.Members:
			warnings = append(warnings, fmt.Sprintf("{{%s}}: %d of %d contacts have no value, and %s.", f.Written, counts.Members-have, counts.Members, missingEffect(spec)))
		}
	}
	if !draft {
		return warnings, unknown.Err()
	}
	for _, p := range unknown {
		warnings = append(warnings, p.Detail+" "+p.Fix)
	}
	return warnings, nil
}

// usedField is a merge field and the first field of the campaign whose text has it.
type usedField struct {
	text.Field
	field string
}

// fieldsOf returns the merge fields of all texts of a campaign, each once. Named parameters of a template that were not
// given are not included, because only the template says which parameters there are.
func fieldsOf(spec *store.Spec) []usedField {
	var out []usedField
	for _, w := range textsOf(spec) {
		tpl, err := text.Parse(w.text)
		if err != nil {
			continue // applyContent refuses the text
		}
		for _, f := range tpl.Fields() {
			if !slices.ContainsFunc(out, func(o usedField) bool { return o.Name == f.Name }) {
				out = append(out, usedField{f, w.field})
			}
		}
	}
	return out
}

// afterwards runs mergeFields and lookUp for a campaign as it will be after the change in body. If it stays a draft, it
// is treated as one.
func (s *server) afterwards(ctx context.Context, at *addressed, body *CampaignInput, find listFinder) ([]string, *found, error) {
	changed := *at.campaign
	if ps := body.apply(&changed.Spec, &at.who.tenant, s.Now(), find); ps.Err() != nil {
		return nil, &found{}, nil //nolint:nilerr // the change itself returns the same error
	}
	draft := body.Draft.Value || changed.State == schemas.StateDraft || changed.State == schemas.StateRejected
	refs, err := s.lookUp(ctx, at.who, &changed.Spec, draft)
	if err != nil {
		return nil, nil, err
	}
	fields, err := s.mergeFields(ctx, at.who.tenant.ID, &changed.Spec, draft)
	return fields, refs, err
}

// unknownField returns the problem of a merge field that no contact has.
func unknownField(field string, f text.Field, names map[string]uint64) *problem.Problem {
	p := problem.Field(problem.CodeUnknownPlaceholder, field, "No contact of the lists has a value for {{%s}}.", f.Written)
	near := nearest(f.Name, names, 3)
	const otherwise = "import contacts with a column of that name, or remove the field from the text."
	switch {
	case len(near) > 0:
		return p.WithFix("Did you mean %s? Else %s", placeholders(near, " or "), otherwise)
	case len(names) > 0:
		return p.WithFix("The contacts have %s: use one of them, %s", placeholders(frequent(names, 5), ", "), otherwise)
	}
	return p.WithFix("The contacts have no fields at all: %s", otherwise)
}

// placeholders returns names in the form in which texts have them.
func placeholders(names []string, between string) string {
	return "{{" + strings.Join(names, "}}"+between+"{{") + "}}"
}

// frequent returns the names that most contacts have.
func frequent(names map[string]uint64, most int) []string {
	all := slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(names[b], names[a]), cmp.Compare(a, b))
	})
	return all[:min(most, len(all))]
}

// missingEffect says what happens to a recipient without a value.
func missingEffect(spec *store.Spec) string {
	switch spec.Missing {
	case schemas.MissingPolicyFail:
		return "will not be sent to"
	case schemas.MissingPolicyDefault:
		return fmt.Sprintf("will get %q instead", spec.MissingDefault)
	default:
		return "will get nothing in its place"
	}
}

// nearest returns the names that are most similar to a name, best first: those with the smallest edit distance, which
// must be at most half the letters of the name.
func nearest(name string, names map[string]uint64, most int) []string {
	type near struct {
		name     string
		distance int
	}
	var found []near
	for _, other := range slices.Sorted(maps.Keys(names)) {
		if names[other] == 0 {
			continue
		}
		d := distance(strings.ReplaceAll(name, "_", ""), strings.ReplaceAll(other, "_", ""))
		if d <= max(1, len([]rune(name))/2) {
			found = append(found, near{other, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return a.distance - b.distance })
	out := make([]string, 0, most)
	for _, f := range found[:min(most, len(found))] {
		out = append(out, f.name)
	}
	return out
}

// distance is the number of letters to insert, delete or replace to turn one text into the other (Levenshtein).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			cost := diagonal
			if x[i] != y[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(y)]
}
