package httpsms

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Twilio signs with it; as a MAC it holds
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"fanfare/sinks/carrier"
)

// ErrUnverified is returned for a callback that is not from the provider, or that cannot be verified.
var ErrUnverified = errors.New("httpsms: the callback is not the provider's")

func unverified(why string) error { return fmt.Errorf("%w: %s", ErrUnverified, why) }

// verifier returns an error unless a callback is from the provider.
type verifier func(c *carrier.Callback, now time.Time) error

// newVerifier makes a verifier. fill replaces placeholders by values.
func newVerifier(v *Verify, fill func(string) (string, error)) (verifier, error) {
	user, err := fill(v.User)
	if err != nil {
		return nil, err
	}
	secret, err := fill(v.Secret)
	if err != nil {
		return nil, err
	}
	addresses, err := fill(v.Addresses)
	if err != nil {
		return nil, err
	}
	if secret == "" && v.Scheme != "none" && v.Scheme != "ip-allow" {
		return nil, fmt.Errorf("scheme %s wants a secret", v.Scheme)
	}
	switch v.Scheme {
	case "none":
		return func(*carrier.Callback, time.Time) error { return nil }, nil
	case "basic":
		return func(c *carrier.Callback, _ time.Time) error { return verifyBasic(c, user, secret) }, nil
	case "hmac-sha256":
		if v.Header == "" {
			return nil, errors.New("scheme hmac-sha256 wants a header")
		}
		return func(c *carrier.Callback, _ time.Time) error { return verifyHMAC(c, v, secret) }, nil
	case "twilio-sha1":
		return func(c *carrier.Callback, _ time.Time) error { return verifyTwilio(c, secret) }, nil
	case "jwt-hs256":
		return func(c *carrier.Callback, now time.Time) error { return verifyJWT(c, secret, now) }, nil
	case "ip-allow":
		nets, err := parseNetworks(addresses)
		if err != nil {
			return nil, err
		}
		return func(c *carrier.Callback, _ time.Time) error { return verifyAddress(c, nets) }, nil
	case "secret-in-url":
		if v.Param == "" {
			return nil, errors.New("scheme secret-in-url wants a param")
		}
		// Providers replace signs such as %d in the address by their own values, so a secret that needs escaping would
		// be changed.
		if strings.Trim(secret, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~") != "" || len(secret) < leastSecret {
			return nil, fmt.Errorf("scheme secret-in-url wants a secret of at least %d letters, digits and - . _ ~", leastSecret)
		}
		return func(c *carrier.Callback, _ time.Time) error { return verifyParam(c, v.Param, secret) }, nil
	default:
		return nil, fmt.Errorf("scheme %q: want basic, hmac-sha256, twilio-sha1, jwt-hs256, ip-allow, secret-in-url or none", v.Scheme)
	}
}

// leastSecret is the minimum length of a secret in an address, because attackers can try as many as they want.
const leastSecret = 16

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func verifyBasic(c *carrier.Callback, user, password string) error {
	r := http.Request{Header: c.Header}
	u, p, ok := r.BasicAuth()
	if !ok || !same(u, user) || !same(p, password) {
		return unverified("user or password")
	}
	return nil
}

func verifyHMAC(c *carrier.Callback, v *Verify, secret string) error {
	got, ok := strings.CutPrefix(c.Header.Get(v.Header), v.Prefix)
	if !ok || got == "" {
		return unverified("no " + v.Header)
	}
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(c.Body)
	sum := m.Sum(nil)
	want := hex.EncodeToString(sum)
	if v.Base64 {
		want = base64.StdEncoding.EncodeToString(sum)
	}
	if !same(got, want) && (v.Base64 || !same(strings.ToLower(got), want)) {
		return unverified(v.Header)
	}
	return nil
}

// verifyTwilio checks X-Twilio-Signature: HMAC-SHA1, in base64, of the address followed by the sorted form fields, each
// name with its value. For a JSON body, the address has its SHA-256 as bodySHA256 instead.
func verifyTwilio(c *carrier.Callback, secret string) error {
	u, err := url.Parse(c.URL)
	if err != nil {
		return unverified("address")
	}
	var b strings.Builder
	b.WriteString(c.URL)
	if want := u.Query().Get("bodySHA256"); want != "" {
		sum := sha256.Sum256(c.Body)
		if !same(strings.ToLower(want), hex.EncodeToString(sum[:])) {
			return unverified("bodySHA256")
		}
	} else if c.Method == http.MethodPost {
		form, err := url.ParseQuery(string(c.Body))
		if err != nil {
			return unverified("form")
		}
		names := make([]string, 0, len(form))
		for n := range form {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			values := slices.Clone(form[n])
			slices.Sort(values)
			for _, v := range slices.Compact(values) {
				b.WriteString(n)
				b.WriteString(v)
			}
		}
	}
	m := hmac.New(sha1.New, []byte(secret))
	m.Write([]byte(b.String()))
	if !same(c.Header.Get("X-Twilio-Signature"), base64.StdEncoding.EncodeToString(m.Sum(nil))) {
		return unverified("X-Twilio-Signature")
	}
	return nil
}

// clocks is the greatest difference between the provider's clock and ours.
const clocks = 5 * time.Minute

// verifyJWT checks a bearer token signed with HS256: its signature, its times and, if it has one, the hash of the body.
func verifyJWT(c *carrier.Callback, secret string, now time.Time) error {
	token, ok := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(token, ".")
	if !ok || len(parts) != 3 {
		return unverified("no token")
	}
	var head struct {
		Alg string `json:"alg"`
	}
	if raw, err := base64.RawURLEncoding.DecodeString(parts[0]); err != nil || json.Unmarshal(raw, &head) != nil || head.Alg != "HS256" {
		return unverified("token of another kind")
	}
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(parts[0] + "." + parts[1]))
	if !same(parts[2], base64.RawURLEncoding.EncodeToString(m.Sum(nil))) {
		return unverified("token's signature")
	}
	var claims struct {
		Exp         int64  `json:"exp"`
		Nbf         int64  `json:"nbf"`
		Iat         int64  `json:"iat"`
		PayloadHash string `json:"payload_hash"`
	}
	if raw, err := base64.RawURLEncoding.DecodeString(parts[1]); err != nil || json.Unmarshal(raw, &claims) != nil {
		return unverified("token's claims")
	}
	switch {
	case claims.Exp != 0 && now.After(time.Unix(claims.Exp, 0).Add(clocks)),
		claims.Exp == 0 && (claims.Iat == 0 || now.After(time.Unix(claims.Iat, 0).Add(24*time.Hour))):
		return unverified("token is old")
	case claims.Nbf != 0 && now.Before(time.Unix(claims.Nbf, 0).Add(-clocks)), claims.Iat != 0 && now.Before(time.Unix(claims.Iat, 0).Add(-clocks)):
		return unverified("token is of the future")
	}
	if claims.PayloadHash != "" {
		sum := sha256.Sum256(c.Body)
		if !same(strings.ToLower(claims.PayloadHash), hex.EncodeToString(sum[:])) {
			return unverified("payload_hash")
		}
	}
	return nil
}

func parseNetworks(s string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		if addr, err := netip.ParseAddr(f); err == nil {
			nets = append(nets, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(f)
		if err != nil {
			return nil, fmt.Errorf("addresses: %q is neither an address nor a network such as 192.0.2.0/24", f)
		}
		nets = append(nets, p.Masked())
	}
	if len(nets) == 0 {
		return nil, errors.New("scheme ip-allow wants addresses")
	}
	return nets, nil
}

func verifyAddress(c *carrier.Callback, nets []netip.Prefix) error {
	from := c.From.Unmap()
	for _, n := range nets {
		if n.Contains(from) {
			return nil
		}
	}
	return unverified("address that it came from")
}

func verifyParam(c *carrier.Callback, param, secret string) error {
	u, err := url.Parse(c.URL)
	if err != nil || !same(u.Query().Get(param), secret) {
		return unverified("secret in the address")
	}
	return nil
}
