package ui

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

//go:embed texts/en.json
var english []byte

// texts is the catalogue of all texts of the console, by key. A second language would be a second file.
var texts = func() map[string]string {
	out := map[string]string{}
	if err := json.Unmarshal(english, &out); err != nil {
		panic(fmt.Sprintf("ui: texts/en.json: %v", err)) //nolint:forbidigo // the file is embedded, so a test finds the error first
	}
	return out
}()

// say returns a text of the catalogue, formatted with the arguments (%s, %d). An unknown key is an error, so that the
// test of a template finds it.
func say(key string, args ...any) (string, error) {
	text, ok := texts[key]
	if !ok {
		return "", fmt.Errorf("there is no text %q in texts/en.json", key)
	}
	if len(args) == 0 {
		return text, nil
	}
	for i, a := range args {
		if p, ok := a.(*string); ok && p != nil {
			args[i] = *p
		}
	}
	return fmt.Sprintf(text, args...), nil
}

// mustSay is say for constant keys in the code.
func mustSay(key string, args ...any) string {
	text, err := say(key, args...)
	if err != nil {
		panic(err) //nolint:forbidigo // a test checks every key in the code
	}
	return text
}
