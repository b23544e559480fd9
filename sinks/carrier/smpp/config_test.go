package smpp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"fanfare/sinks/carrier/smpp"
)

// TestParse: the error names each field that is wrong and says what to do, for all fields at once.
func TestParse(t *testing.T) {
	for in, want := range map[string][]string{
		`{"host":"smsc.example","systemId":"a","password":"b"}`: nil,
		`{"host":"smsc.example","port":3550,"systemId":"a","password":"b","tls":{},"binds":4,"split":true,"window":100,"answerTimeout":"5s",
		  "alphabet":"latin1","long":"sar","validity":"absolute","ids":"hex-to-dec","numbering":{"short":{"ton":6,"npi":0}},"registeredDelivery":0,
		  "receiptFields":["id","stat"],"receiptSeparator":"|","codes":["err,069,,BARRED"],"referenceTlv":5123,"referenceEchoed":true,"version":"5.0"}`: nil,
		`{"host":"h","systemId":"a","pasword":"b"}`: {`unknown field "pasword"`},
		`{"host":"h"}`: {"systemId: want 1 to 32"},
		`{"host":"smpp://h/","systemId":"a","port":70000,"binds":65,"window":2001,"version":"2.0","alphabet":"ebcdic","long":"no","validity":"soon","ids":"octal"}`: {
			"host", "without a port", "port: want 1 to 65535, got 70000", "binds: want 1 to 64", "window: want 1 to 2000", `version "2.0": want 3.4`, `alphabet "ebcdic"`, `long "no"`, `validity "soon"`, `ids "octal"`,
		},
		`{"host":"h","systemId":"a","password":"` + strings.Repeat("x", 65) + `"}`:                                   {"password: want 0 to 64 characters, got 65"},
		`{"host":"h","systemId":"a","answerTimeout":"5"}`:                                                            {`"5" is not a duration such as 10s`},
		`{"host":"h","systemId":"a","answerTimeout":"1ms","enquireLink":"1m","inactivity":"1m","reconnectMin":"2m"}`: {"answerTimeout: want 100ms to 5m0s, got 1ms", "inactivity: want more than enquireLink", "reconnectMax: want at least reconnectMin"},
		`{"host":"h","systemId":"a","tls":{"ca":"x"}}`:                                                               {"tls.ca: want certificates as PEM"},
		`{"host":"h","systemId":"a","tls":{"certificate":"x","key":"y"}}`:                                            {"tls.certificate and tls.key"},
		`{"host":"h","systemId":"a","receiptFields":["id"],"receiptZone":"Atlantis"}`:                                {"receiptFields", "at least id and stat", "receiptZone: want the name of a time zone"},
		`{"host":"h","systemId":"a","codes":["err,069"]}`:                                                            {"codes, line 1: got 2 fields"},
		`{"host":"h","systemId":"a","referenceTlv":1,"serviceType":"too long"}`:                                      {"referenceTlv: want 5120 to 16383", "serviceType: want 0 to 5"},
		`{"host":"h","systemId":"a","referenceEchoed":true}`:                                                         {"referenceEchoed: want referenceTlv"},
		`{"host":"h","systemId":"a"} {}`:                                                                             {"something follows"},
	} {
		_, err := smpp.Parse([]byte(in))
		if len(want) == 0 {
			if err != nil {
				t.Errorf("%s: got %v, want no error", in, err)
			}
			continue
		}
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %v, want an error with %q", in, err, w)
			}
		}
	}
}

// TestSecretsAreNotPrinted: secrets appear in no form that a log, an error or an answer may have.
func TestSecretsAreNotPrinted(t *testing.T) {
	cfg, err := smpp.Parse([]byte(`{"host":"h","systemId":"a","password":"hunter2"}`))
	if err != nil || cfg.Password != "hunter2" {
		t.Fatalf("got %v, want the password read", err)
	}
	cfg.TLS = &smpp.TLS{Key: "hunter2"}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q", cfg, cfg, cfg, cfg.Password, cfg.Password)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "cfg", cfg, "password", cfg.Password, "tls", cfg.TLS)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "cfg", cfg, "password", cfg.Password, "tls", *cfg.TLS)
	raw, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(raw)
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("the password is printed: %s", out.String())
	}
}
