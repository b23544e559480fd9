// Package credentials encrypts the credentials of a route's account: passwords, keys, tokens. They are encrypted
// (AES-256-GCM, "sealed") with a key that is neither in the store nor in a topic, so that a copy of the database or of
// the topics does not reveal them. The API seals them, and the processes that connect to carriers open them.
//
// A sealed text is bound to the name of its route: in the row of another route it cannot be opened.
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
	// ErrOtherKey is returned for a text that was sealed with a key that is not among the keys.
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

// Generate returns a new key in the form that [Parse] reads.
func Generate() string {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // it never fails
	return hex.EncodeToString(raw)
}

// Parse reads keys of 64 hexadecimal digits, separated by commas. The first key seals and all of them open, so that a
// key can be replaced.
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

// Open decrypts a text that was sealed for a route. The error is [ErrOtherKey] or [ErrDamaged].
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

// Settings returns the settings of a connector: the configuration with the credentials merged into it. Both are JSON
// objects, or empty. If both have the same field and it is not an object, the value of the credentials is used.
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

// Names returns the paths of all values of a JSON object, sorted, such as `password` and `tls.key`. It returns no
// value.
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
