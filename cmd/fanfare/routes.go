package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"

	"fanfare/api"
	"fanfare/schemas/credentials"
)

// credentialsKeyFile has the key that seals the credentials of routes, in a data directory with the store.
const credentialsKeyFile = "credentials.key"

// giveCredentialsKey says how a process gets the key.
const giveCredentialsKey = "start it with the same FANFARE_CREDENTIALS_KEY as the others"

// hangUpTime is how long a disconnect may take after a test of a route.
const hangUpTime = 2 * time.Second

// openSealing finds the key that seals the credentials of routes: --credentials-key, else the file under --data. If the
// store is under --data too, then the file is made when there is none: no other process needs another one. Without a
// key the process runs, and serves routes that have no credentials.
func (w *wiring) openSealing() error {
	text := w.cfg.CredentialsKey
	if text == "" {
		path := filepath.Join(w.cfg.Data, credentialsKeyFile)
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			if w.cfg.Store != "" || !w.cfg.needsStore() {
				return nil
			}
			raw = []byte(credentials.Generate() + "\n")
			err = writePrivate(path, raw)
		}
		if err != nil {
			return fmt.Errorf("--data: key for credentials: %w", err)
		}
		text = string(raw)
	}
	keys, err := credentials.Parse(strings.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("--credentials-key: %w", err)
	}
	w.sealing = keys
	return nil
}

// writePrivate makes a file that only its owner can read, whole or not at all. It fails if there is one of that name.
func writePrivate(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// loadRoutes creates and changes the routes of the file that --route-file names. The file takes precedence over the
// store; a route that the file does not name stays unchanged.
func (w *wiring) loadRoutes(ctx context.Context) error {
	path := w.cfg.RouteFile
	if path == "" {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--route-file: %w", err)
	}
	tree, err := yaml.Parser().Unmarshal(raw)
	if err != nil {
		return fmt.Errorf("--route-file %s: %w", path, err)
	}
	document, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("--route-file %s: %w", path, err)
	}
	changed, err := api.LoadRoutes(ctx, w.store, w.apiConnectors(), document)
	if err != nil {
		return fmt.Errorf("--route-file %s: %w", path, err)
	}
	if len(changed) > 0 {
		w.log.InfoContext(ctx, "routes loaded", "file", path, "changed", changed)
	}
	return nil
}
