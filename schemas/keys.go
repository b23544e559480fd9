package schemas

import (
	"encoding/hex"
	"errors"
	"strings"
)

// ParseKeys reads the setting --id-key: one or two secrets in hexadecimal, separated by a comma. The first one signs.
func ParseKeys(text string) (*Keys, error) {
	var secrets [][]byte
	for part := range strings.SplitSeq(text, ",") {
		b, err := hex.DecodeString(strings.TrimSpace(part))
		if err != nil {
			return nil, errors.New("want hexadecimal digits, such as `openssl rand -hex 32` prints")
		}
		secrets = append(secrets, b)
	}
	return NewKeys(secrets...)
}
