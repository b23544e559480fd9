package embedded

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Login has the accounts of the embedded services. They are made at the first start and kept in the data directory,
// readable only by its owner. Without an account, neither Kafka nor Redis obeys a client.
type Login struct {
	// Kafka is the account of Fanfare itself. It may do everything.
	Kafka Account `json:"kafka"`
	// Consumer may read the public topics, and nothing else.
	Consumer Account `json:"consumer"`
	// Redis is the password of Redis.
	Redis string `json:"redis_password"`
}

// Account is a user of Kafka. It logs in by SASL/PLAIN.
type Account struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// Files of the data directory that only its owner can read.
const (
	loginFile    = "credentials.json"
	consumerFile = "consumer.json"
)

// OpenLogin reads the accounts of a data directory, or makes them. The process must have locked the directory.
func OpenLogin(dir string) (Login, error) {
	l, err := ReadLogin(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	l = Login{Kafka: Account{"fanfare", rand.Text()}, Consumer: Account{"consumer", rand.Text()}, Redis: rand.Text()}
	if err := writeFile(dir, loginFile, l); err != nil {
		return Login{}, fmt.Errorf("credentials of the embedded services: %w", err)
	}
	return l, nil
}

// ReadLogin reads the accounts of a data directory.
func ReadLogin(dir string) (Login, error) {
	var l Login
	b, err := os.ReadFile(filepath.Join(dir, loginFile))
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err == nil && (l.Kafka.Password == "" || l.Consumer.Password == "" || l.Redis == "") {
		err = errors.New("a password is missing; delete the file to make new ones")
	}
	if err != nil {
		return Login{}, fmt.Errorf("credentials of the embedded services: %s: %w", filepath.Join(dir, loginFile), err)
	}
	return l, nil
}

// Connection is the content of DIR/consumer.json: what a consumer of the public topics needs to connect to the running
// process.
type Connection struct {
	Brokers       string   `json:"brokers"`
	SASLMechanism string   `json:"sasl_mechanism"`
	User          string   `json:"user"`
	Password      string   `json:"password"`
	Topics        []string `json:"topics"`
}

// ReadConnection returns what a consumer needs, as the running process has written it.
func ReadConnection(dir string) (Connection, error) {
	var c Connection
	b, err := os.ReadFile(filepath.Join(dir, consumerFile))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, fmt.Errorf("connection of consumers: %w", err)
	}
	return c, nil
}

// writeFile writes v as JSON, at once or not at all, readable only by the owner.
func writeFile(dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, strings.TrimSuffix(name, ".json")+"-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
