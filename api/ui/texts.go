package ui

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

//go:embed texts/en.json
var english []byte

// texts is the one catalogue of what the console says, by key. A second language is a second file.
var texts = func() map[string]string {
	out := map[string]string{}
	if err := json.Unmarshal(english, &out); err != nil {
		panic(fmt.Sprintf("ui: texts/en.json: %v", err)) //nolint:forbidigo // an embedded file: a test meets it first
	}
	return out
}()

// say returns a text of the catalogue, with the arguments put in its verbs (%s, %d). An unknown key is an error, so that the
// template that asks for it fails its test.
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

// mustSay is say for keys that stand in the code.
func mustSay(key string, args ...any) string {
	text, err := say(key, args...)
	if err != nil {
		panic(err) //nolint:forbidigo // a test walks every key in the code
	}
	return text
}
