package credentials

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func keys(t *testing.T, text string) *Keys {
	t.Helper()
	k, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedCredentialsOpenOnlyWithTheirKeyAndForTheirRoute(t *testing.T) {
	old, fresh := Generate(), Generate()
	plain := []byte(`{"password":"s3cret"}`)
	sealed := keys(t, old).Seal("acme", plain)
	if bytes.Contains(sealed, []byte("s3cret")) {
		t.Error("the sealed text shows the password")
	}
	if again := keys(t, old).Seal("acme", plain); bytes.Equal(again, sealed) {
		t.Error("sealed twice alike: equal passwords would be seen to be equal")
	}
	for _, k := range []string{old, fresh + "," + old} { // the second is a rotation
		if got, err := keys(t, k).Open("acme", sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("got %q, %v, want what was sealed", got, err)
		}
	}
	if _, err := keys(t, fresh).Open("acme", sealed); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key: got %v, want ErrOtherKey", err)
	}
	if _, err := keys(t, old).Open("other", sealed); !errors.Is(err, ErrDamaged) {
		t.Errorf("another route: got %v, want ErrDamaged", err)
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, err := keys(t, old).Open("acme", changed); err == nil {
			t.Fatalf("octet %d changed: opened", i)
		}
		if _, err := keys(t, old).Open("acme", sealed[:i]); err == nil {
			t.Fatalf("cut at %d: opened", i)
		}
	}
}

func TestParseKeysRefusesWhatIsNoKey(t *testing.T) {
	for _, text := range []string{"", "abc", strings.Repeat("zz", 32), strings.Repeat("ab", 31), Generate() + ","} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestSettingsAndNames(t *testing.T) {
	got, err := Settings([]byte(`{"host":"h","port":2775,"tls":{"ca":"c"},"big":12345678901234567890}`), []byte(`{"password":"p","tls":{"key":"k"}}`))
	if want := `{"big":12345678901234567890,"host":"h","password":"p","port":2775,"tls":{"ca":"c","key":"k"}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if got, err := Settings(nil, nil); err != nil || string(got) != `{}` {
		t.Errorf("got %s, %v, want {}", got, err)
	}
	for _, bad := range []string{`[]`, `"x"`, `null`, `{`} {
		if _, err := Settings([]byte(bad), nil); err == nil {
			t.Errorf("configuration %s is taken", bad)
		}
	}
	names, err := Names([]byte(`{"tls":{"key":"k"},"password":"p"}`))
	if want := []string{"password", "tls.key"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, %v, want %v", names, err, want)
	}
}
