// Package credentials keeps what a route's account needs to log in: passwords, keys, tokens. They are sealed (AES-256-GCM) by a key that
// is neither in the store nor on a topic, so that a copy of the database or of the log gives nothing away. The API seals them, and the
// processes that speak to carriers open them.
//
// A sealed text is bound to the name of its route: put into another row, it does not open.
package credentials

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Errors of [Keys.Open].
var (
	// ErrOtherKey is returned for a text that was sealed with none of the keys.
	ErrOtherKey = errors.New("the credentials were sealed with another key")
	// ErrDamaged is returned for a text that was changed, or that belongs to another route.
	ErrDamaged = errors.New("the credentials are damaged")
)

const (
	format  = 1
	keySize = 32
	idSize  = 4
)

// Keys seal and open. The zero value has no key.
type Keys struct{ list []key }

type key struct {
	id   [idSize]byte
	aead cipher.AEAD
}

// Generate returns a new key as [Parse] reads it.
func Generate() string {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // it never fails
	return hex.EncodeToString(raw)
}

// Parse reads keys of 64 hexadecimal digits, separated by commas. The first seals; all of them open, so that a key can be replaced.
func Parse(text string) (*Keys, error) {
	k := &Keys{}
	for part := range strings.SplitSeq(text, ",") {
		raw, err := hex.DecodeString(strings.TrimSpace(part))
		if err != nil || len(raw) != keySize {
			return nil, fmt.Errorf("a key for credentials has %d hexadecimal digits (openssl rand -hex %d)", 2*keySize, keySize)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("key for credentials: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("key for credentials: %w", err)
		}
		sum := sha256.Sum256(raw)
		k.list = append(k.list, key{[idSize]byte(sum[:idSize]), aead})
	}
	return k, nil
}

// Seal seals credentials for a route.
func (k *Keys) Seal(route string, plain []byte) []byte {
	first := k.list[0]
	nonce := make([]byte, first.aead.NonceSize())
	_, _ = rand.Read(nonce) // it never fails
	out := slices.Concat([]byte{format}, first.id[:], nonce)
	return first.aead.Seal(out, nonce, plain, []byte(route))
}

// Open returns what was sealed for a route, or [ErrOtherKey] or [ErrDamaged].
func (k *Keys) Open(route string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+idSize || sealed[0] != format {
		return nil, ErrDamaged
	}
	id, rest := [idSize]byte(sealed[1:]), sealed[1+idSize:]
	for _, known := range k.list {
		if known.id != id {
			continue
		}
		n := known.aead.NonceSize()
		if len(rest) < n {
			return nil, ErrDamaged
		}
		plain, err := known.aead.Open(nil, rest[:n], rest[n:], []byte(route))
		if err != nil {
			return nil, ErrDamaged
		}
		return plain, nil
	}
	return nil, ErrOtherKey
}

// Settings returns what a connector is opened with: the configuration with the credentials put into it. Both are JSON objects, or empty.
// Where both have a field that is no object, the credential wins.
func Settings(configuration, secret []byte) ([]byte, error) {
	into, err := object("configuration", configuration)
	if err != nil {
		return nil, err
	}
	from, err := object("credentials", secret)
	if err != nil {
		return nil, err
	}
	merge(into, from)
	out, err := json.Marshal(into)
	if err != nil {
		return nil, fmt.Errorf("write the settings of a connector: %w", err)
	}
	return out, nil
}

// Names returns the paths of all values of a JSON object, sorted, such as `password` and `tls.key`. It returns no value.
func Names(raw []byte) ([]string, error) {
	o, err := object("credentials", raw)
	if err != nil {
		return nil, err
	}
	var names []string
	walk("", o, func(path string) { names = append(names, path) })
	slices.Sort(names)
	return names, nil
}

func object(what string, raw []byte) (map[string]any, error) {
	o := map[string]any{}
	if len(bytes.TrimSpace(raw)) == 0 {
		return o, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // numbers stay as they were written
	if err := d.Decode(&o); err != nil || o == nil {
		return nil, fmt.Errorf("the %s must be a JSON object", what)
	}
	return o, nil
}

func merge(into, from map[string]any) {
	for name, v := range from {
		below, isObject := v.(map[string]any)
		if have, ok := into[name].(map[string]any); ok && isObject {
			merge(have, below)
			continue
		}
		into[name] = v
	}
}

func walk(prefix string, o map[string]any, found func(path string)) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if below, ok := o[name].(map[string]any); ok {
			walk(prefix+name+".", below, found)
			continue
		}
		found(prefix + name)
	}
}
