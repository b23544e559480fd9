package api

// Codes are all codes of problems, for the test that provokes each of them.
func Codes() []Code {
	out := make([]Code, 0, len(catalogue))
	for c := range catalogue {
		out = append(out, c)
	}
	return out
}

// Status is the HTTP status of a code.
func (c Code) Status() int { return catalogue[c].status }
