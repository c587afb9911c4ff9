package delivery

import (
	"strings"
	"testing"
)

func TestReceivedID(t *testing.T) {
	for _, test := range []struct{ value, want string }{
		{" from mail.example.net (mail.example.net [192.0.2.1])\n\tby mx.example.org (Postfix) with ESMTPS id 4XyZ1b2C3dz\n\tfor <ann@example.org>; Fri,  1 Mar 2024 10:00:00 +0100 (CET)", "4XyZ1b2C3dz"},
		{" by mx.example.org (Postfix, from userid 1000)\r\n\tid 0BAD1DEA; Fri, 1 Mar 2024 10:00:00 +0100", "0BAD1DEA"},
		{" from [192.0.2.1] (helo=x) by mx.example.org with esmtp (Exim 4.96) (envelope-from <a@b>) id 1sAbCd-0000Xy-2z for ann@example.org; Fri, 1 Mar", "1sAbCd-0000Xy-2z"},
		{" from a by b with SMTP ID <20240301.x@b>; date", "20240301.x@b"},
		{" from id (id [192.0.2.1]) by mx with SMTP id REAL; date", "REAL"},
		{" from x (id FORGED) by mx with SMTP id REAL; date", "REAL"},
		{" from x (a \\) id FORGED (nested) ) by mx id REAL; date", "REAL"},
		{` from "x id FORGED" by mx id REAL; date`, "REAL"},
		{" from x by mx; id LATE", ""},
		{" from x by mx id", ""},
		{" from x by mx id a\x1bb; date", ""},
		{" from x by mx id \"quoted\"; date", ""},
		{" from x by mx id " + strings.Repeat("x", 101) + "; date", ""},
		{" from x (unclosed id X", ""},
		{"", ""},
	} {
		if got := receivedID(test.value); got != test.want {
			t.Errorf("%q: %q, want %q", test.value, got, test.want)
		}
	}
}

// The queue id is that of the topmost field: the host that hands the mail to us.
func TestQueueIDOfMessage(t *testing.T) {
	sp, err := Spool{}.take(strings.NewReader("Subject: x\r\nReceived: from b by c with LMTP\r\n\tid SECOND; date\r\nReceived: by d id THIRD; date\r\n\r\n"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	if got := sp.header.queueID; got != "SECOND" {
		t.Errorf("got %q", got)
	}
}

func FuzzReceivedID(f *testing.F) {
	f.Add(" from x (c) by mx (Postfix) with ESMTP id 4XyZ; date")
	f.Add(` from "(" by mx (\" id B) id A;`)
	f.Fuzz(func(t *testing.T, value string) {
		id := receivedID(value)
		if len(id) > maxQueueID || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
			t.Errorf("%q gives %q", value, id)
		}
	})
}
