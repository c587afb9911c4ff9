package main

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "512": 512, "64 MiB": 64 << 20, "64MiB": 64 << 20, " 1 kib ": 1 << 10, "10MB": 10e6,
		"1k": 1 << 10, "2G": 2 << 30, "7 B": 7, "1_000": 1000, "8388607 TiB": 8388607 << 40,
		"9223372036854775807": math.MaxInt64,
	} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "_", "-1", "+1", "1.5 MiB", "MiB", "64 mebibyte", "0x10", "9223372036854775808", "8388608 TiB"} {
		got := size(7)
		var v *valueError
		if err := got.UnmarshalText([]byte(text)); !errors.As(err, &v) || got != 7 {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	for s, want := range map[size]string{0: "0", 1: "1", 1000: "1000", 1 << 10: "1 KiB", 3 << 20: "3 MiB", 5 << 40: "5 TiB"} {
		if got := s.String(); got != want {
			t.Errorf("%d: got %q, want %q", int64(s), got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"5m": 5 * time.Minute, "300s": 5 * time.Minute, "1h30m": 90 * time.Minute, " 1.5s ": 1500 * time.Millisecond} {
		var got duration
		if err := got.UnmarshalText([]byte(text)); err != nil || time.Duration(got) != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "300", "5 m", "m", "1d", "99999999999h"} {
		var got duration
		var v *valueError
		if err := got.UnmarshalText([]byte(text)); !errors.As(err, &v) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestFileMode(t *testing.T) {
	for text, want := range map[string]fileMode{"0660": 0o660, "660": 0o660, "0777": 0o777, "0200": 0o200} {
		var got fileMode
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "66", "00660", "0o660", "888", "-660", "1777", "0440", "u=rw"} {
		var got fileMode
		var v *valueError
		if err := got.UnmarshalText([]byte(text)); !errors.As(err, &v) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestSocketAddress(t *testing.T) {
	for text, want := range map[string]string{
		"unix:/run/lmtpd/lmtp.sock":  "unix:/run/lmtpd/lmtp.sock",
		"/run//lmtpd/./lmtp.sock":    "unix:/run/lmtpd/lmtp.sock",
		"unix:/with space:and=colon": "unix:/with space:and=colon",
		"tcp:127.0.0.1:24":           "tcp:127.0.0.1:24",
		"tcp:[::1]:024":              "tcp:[::1]:24",
		"tcp:[fe80::1%eth0]:24":      "tcp:[fe80::1%eth0]:24",
		"tcp:mail.example.org:65535": "tcp:mail.example.org:65535",
		"/" + string(make106()) + "": "unix:/" + string(make106()),
	} {
		got, err := parseSocketAddress(text)
		if err != nil || got.String() != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "lmtp.sock", "unix:", "unix:lmtp.sock", "/", "//", "/run/", "unix:/a\x00b", "/a\nb", "/" + string(make106()) + "x",
		"tcp:", "tcp:24", "tcp::24", "tcp:h:", "tcp:h:x", "tcp:h:-1", "tcp:h:65536", "tcp:::1:24", "tcp:a b:24", "tcp:a/b:24",
		"tcp:[[::1]]:24", "udp:127.0.0.1:24", "UNIX:/run/x", "@abstract", "unix:@abstract",
	} {
		got, err := parseSocketAddress(text)
		var v *valueError
		if !errors.As(err, &v) || got != (socketAddress{}) {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if got := (socketAddress{}).String(); got != "" {
		t.Errorf("no address: %q", got)
	}
}

// make106 is the name of a socket that just fits below "/".
func make106() []byte {
	name := make([]byte, maxSocketPath-1)
	for i := range name {
		name[i] = 'a'
	}
	return name
}

func TestMailboxPath(t *testing.T) {
	for _, good := range []string{"~/Maildir", "~/.mail/%d", "/var/mail/%d/%n/Maildir", "/var/mail/%u", "/a%%b", "/a..b/..c"} {
		if err := checkMailboxPath(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "~", "~/", "/", "Maildir", "~bob/Maildir", "%u/Maildir", "/a/../b", "/..", "~/..", "/a/~/b", "/%", "/%h", "/%%%", "/a\x00", "/a\n"} {
		var v *valueError
		if err := checkMailboxPath(bad); !errors.As(err, &v) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, seed := range []string{"64 MiB", "0", "1_0", "9223372036854775807", "8388608 TiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(s.String())); s < 0 || err != nil || again != s {
			t.Errorf("%q is %d, written %q, which is %d, %v", text, s, s, again, err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"5m", "300", "1h30m", "-1s", "1.5h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%q is %v, %v, %v", text, d, again, err)
		}
	})
}

func FuzzSocketAddress(f *testing.F) {
	for _, seed := range []string{"unix:/run/a", "/a/../b", "tcp:[::1]:24", "tcp:h:0", "tcp::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseSocketAddress(text)
		if err != nil {
			return
		}
		if again, err := parseSocketAddress(a.String()); err != nil || again != a {
			t.Errorf("%q is %q, %q, %v", text, a, again, err)
		}
		if a.Network == "unix" && (len(a.Address) > maxSocketPath || a.Address[0] != '/') {
			t.Errorf("%q is %q", text, a)
		}
	})
}

func FuzzMailboxPath(f *testing.F) {
	for _, seed := range []string{"~/Maildir", "/var/mail/%d/%n", "/%%", "/../a", "~"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if checkMailboxPath(text) == nil && text[0] != '/' && text[:2] != "~/" {
			t.Errorf("accepted %q", text)
		}
	})
}
