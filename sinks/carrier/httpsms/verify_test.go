package httpsms_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/httpsms"
	"fanfare/sinks/carrier/httpsms/provider"
)

func mac(secret, text string) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// jwt makes a token signed with HS256.
func jwt(secret, head, claims string) string {
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(head)) + "." + enc.EncodeToString([]byte(claims))
	return signed + "." + enc.EncodeToString(mac(secret, signed))
}

// TestVerify: each scheme accepts what the provider has signed, and refuses it after any change.
func TestVerify(t *testing.T) {
	const body = `{"a":1}`
	basic := func(user, password string) http.Header {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{"iat":%d,"exp":%d,"payload_hash":"%x"}`, now, now+60, sha256.Sum256([]byte(body)))
	const head = `{"alg":"HS256","typ":"JWT"}`
	fields := url.Values{"MessageSid": {"SM1"}, "MessageStatus": {"delivered"}}
	twilio := func(address string) http.Header {
		return http.Header{"X-Twilio-Signature": {provider.Sign("s", address, fields)}}
	}
	sum := sha256.Sum256([]byte(body))
	withHash := callbackURL + "?bodySHA256=" + hex.EncodeToString(sum[:])
	for _, tc := range []struct {
		name   string
		verify httpsms.Verify
		good   carrier.Callback
		bad    map[string]carrier.Callback
	}{
		{"none", httpsms.Verify{Scheme: "none"}, carrier.Callback{}, nil},
		{"basic", httpsms.Verify{Scheme: "basic", User: "u", Secret: "s"}, carrier.Callback{Header: basic("u", "s")}, map[string]carrier.Callback{
			"password": {Header: basic("u", "t")}, "user": {Header: basic("v", "s")}, "nothing": {},
		}},
		{"hmac, hexadecimal", httpsms.Verify{Scheme: "hmac-sha256", Secret: "s", Header: "X-Sig", Prefix: "sha256="}, carrier.Callback{Body: []byte(body), Header: http.Header{"X-Sig": {"sha256=" + hex.EncodeToString(mac("s", body))}}}, map[string]carrier.Callback{
			"body":      {Body: []byte(body + " "), Header: http.Header{"X-Sig": {"sha256=" + hex.EncodeToString(mac("s", body))}}},
			"secret":    {Body: []byte(body), Header: http.Header{"X-Sig": {"sha256=" + hex.EncodeToString(mac("t", body))}}},
			"no prefix": {Body: []byte(body), Header: http.Header{"X-Sig": {hex.EncodeToString(mac("s", body))}}},
			"nothing":   {Body: []byte(body)},
		}},
		{"hmac, base64", httpsms.Verify{Scheme: "hmac-sha256", Secret: "s", Header: "X-Sig", Base64: true}, carrier.Callback{Body: []byte(body), Header: http.Header{"X-Sig": {base64.StdEncoding.EncodeToString(mac("s", body))}}}, map[string]carrier.Callback{
			"hexadecimal": {Body: []byte(body), Header: http.Header{"X-Sig": {hex.EncodeToString(mac("s", body))}}},
		}},
		{"twilio", httpsms.Verify{Scheme: "twilio-sha1", Secret: "s"}, carrier.Callback{Method: "POST", URL: callbackURL + "?k=1", Header: twilio(callbackURL + "?k=1"), Body: []byte(fields.Encode())}, map[string]carrier.Callback{
			"another address": {Method: "POST", URL: callbackURL + "?k=2", Header: twilio(callbackURL + "?k=1"), Body: []byte(fields.Encode())},
			"another body":    {Method: "POST", URL: callbackURL + "?k=1", Header: twilio(callbackURL + "?k=1"), Body: []byte(fields.Encode() + "&x=1")},
			"nothing":         {Method: "POST", URL: callbackURL + "?k=1", Header: http.Header{}, Body: []byte(fields.Encode())},
			"not a form":      {Method: "POST", URL: callbackURL + "?k=1", Header: twilio(callbackURL + "?k=1"), Body: []byte("%zz")},
		}},
		{"twilio, JSON", httpsms.Verify{Scheme: "twilio-sha1", Secret: "s"}, carrier.Callback{Method: "POST", URL: withHash, Header: http.Header{"X-Twilio-Signature": {provider.Sign("s", withHash, nil)}}, Body: []byte(body)}, map[string]carrier.Callback{
			"another body": {Method: "POST", URL: withHash, Header: http.Header{"X-Twilio-Signature": {provider.Sign("s", withHash, nil)}}, Body: []byte(body + " ")},
		}},
		{"jwt", httpsms.Verify{Scheme: "jwt-hs256", Secret: "s"}, carrier.Callback{Body: []byte(body), Header: bearer(jwt("s", head, claims))}, map[string]carrier.Callback{
			"secret":       {Body: []byte(body), Header: bearer(jwt("t", head, claims))},
			"no algorithm": {Body: []byte(body), Header: bearer(jwt("s", `{"alg":"none"}`, claims))},
			"another body": {Body: []byte(body + " "), Header: bearer(jwt("s", head, claims))},
			"old":          {Body: []byte(body), Header: bearer(jwt("s", head, fmt.Sprintf(`{"iat":%d,"exp":%d}`, now-7200, now-3600)))},
			"of no time":   {Body: []byte(body), Header: bearer(jwt("s", head, `{}`))},
			"of tomorrow":  {Body: []byte(body), Header: bearer(jwt("s", head, fmt.Sprintf(`{"iat":%d,"exp":%d}`, now+86400, now+90000)))},
			"two parts":    {Body: []byte(body), Header: bearer("a.b")},
			"nothing":      {Body: []byte(body)},
		}},
		{"address", httpsms.Verify{Scheme: "ip-allow", Addresses: "192.0.2.0/24, 2001:db8::1"}, carrier.Callback{From: netip.MustParseAddr("::ffff:192.0.2.7")}, map[string]carrier.Callback{
			"another": {From: netip.MustParseAddr("192.0.3.7")}, "none": {},
		}},
		{"secret in the address", httpsms.Verify{Scheme: "secret-in-url", Param: "t", Secret: "s3cr3t-s3cr3t-s3cr3t"}, carrier.Callback{URL: callbackURL + "?k=1&t=s3cr3t-s3cr3t-s3cr3t"}, map[string]carrier.Callback{
			"another": {URL: callbackURL + "?t=x"}, "nothing": {URL: callbackURL}, "no address": {URL: "http://[::"},
		}},
	} {
		c := open(t, httpsms.Config{Spec: &httpsms.Spec{Request: httpsms.Request{URL: "http://h/"}, Callback: &httpsms.Callback{Verify: tc.verify}}})
		if tc.good.Header == nil {
			tc.good.Header = http.Header{}
		}
		if err := c.Verify(&tc.good); err != nil {
			t.Errorf("%s: got %v, want it verified", tc.name, err)
		}
		for what, cb := range tc.bad {
			if cb.Header == nil {
				cb.Header = http.Header{}
			}
			if err := c.Verify(&cb); !errors.Is(err, httpsms.ErrUnverified) {
				t.Errorf("%s, %s: got %v, want it refused", tc.name, what, err)
			}
		}
	}
	c := open(t, httpsms.Config{Spec: &httpsms.Spec{Request: httpsms.Request{URL: "http://h/"}}})
	if err := c.Verify(&carrier.Callback{}); err == nil {
		t.Error("a spec without callbacks verified one")
	}
	if _, _, err := c.Parse(&carrier.Callback{}); err == nil {
		t.Error("a spec without callbacks parsed one")
	}
}

// FuzzParse: for any input, each receipt names a message.
func FuzzParse(f *testing.F) {
	var connectors []*httpsms.Connector
	for name, p := range presets(f, "http://h") {
		c, err := httpsms.New(httpsms.Config{Preset: name, Values: p.values, CallbackURL: callbackURL}, httpsms.Deps{Account: "r"})
		if err != nil {
			f.Fatal(err)
		}
		connectors = append(connectors, c)
		for _, cb := range p.callbacks {
			f.Add(cb.cb.Method, cb.cb.URL, cb.cb.Header.Get("Content-Type"), cb.cb.Body)
		}
	}
	f.Fuzz(func(t *testing.T, method, address, kind string, body []byte) {
		for _, c := range connectors {
			cb := carrier.Callback{Method: method, URL: address, Header: http.Header{"Content-Type": {kind}}, Body: body}
			receipts, _, err := c.Parse(&cb)
			if err != nil && len(receipts) > 0 {
				t.Fatal("an error and receipts")
			}
			for _, r := range receipts {
				if r.Ref == "" && r.Key.IsZero() || r.Status == 0 {
					t.Fatalf("got receipt %+v", r)
				}
			}
			_ = c.Verify(&cb)
		}
	})
}
