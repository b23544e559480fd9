package voice_test

import (
	"strings"
	"testing"

	"fanfare/sinks/carrier/voice"
)

// FuzzEvent: any data from the socket gives an event or an error.
func FuzzEvent(f *testing.F) {
	for _, seed := range []string{
		`{"type":"StasisStart","timestamp":"2026-11-30T12:00:00.123+0000","args":["amd","HUMAN","HUMAN-1500-800"],"channel":{"id":"fanfare-00000000002a0000000101f0e0d0c0b0","name":"PJSIP/trunk-00000001","state":"Up","caller":{"name":"","number":""},"dialplan":{"context":"default","exten":"s","priority":1,"app_name":"Stasis","app_data":"fanfare,call"}},"asterisk_id":"02:42:ac:11:00:02","application":"fanfare"}`,
		`{"type":"ChannelDestroyed","timestamp":"2026-11-30T12:00:00.123+0000","cause":17,"cause_txt":"User busy","channel":{"id":"fanfare-00000000002a0000000101f0e0d0c0b0","state":"Down"},"application":"fanfare"}`,
		`{"type":"PlaybackFinished","playback":{"id":"x","media_uri":"sound:hello","target_uri":"channel:fanfare-00000000002a0000000101f0e0d0c0b0","language":"en","state":"done"},"application":"fanfare"}`,
		`{"type":"PlaybackFinished"}`, `{"type":"ApplicationReplaced","application":"fanfare"}`, `{"type":"Dial","peer":{"id":"x"}}`,
		`{"type":1}`, `{}`, `[]`, `null`, ``, `{"type":"StasisStart","channel":null,"args":null}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		kind, id, err := voice.FuzzedEvent(raw)
		if (kind == "") == (err == nil) {
			t.Errorf("got type %q and error %v, want one of them", kind, err)
		}
		if err != nil && id != "" {
			t.Errorf("got id %q with an error", id)
		}
		if strings.HasPrefix(id, "channel:channel:") && !strings.Contains(string(raw), "channel:") {
			t.Errorf("got id %q, which is not in the event", id)
		}
	})
}
