package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// String is the report as a screen for people.
func (r *statusReport) String() string {
	var b strings.Builder
	up := r.Now.Sub(r.Started)
	fmt.Fprintf(&b, "lmtpd %s, process %d, up %s since %s\n\n", printable(r.Version), r.PID, uptime(up), r.Started.Local().Format("2006-01-02 15:04:05"))
	fmt.Fprintf(&b, "configuration  %s, read %s\n", printable(r.Service.Config), r.Service.Loaded.Local().Format("2006-01-02 15:04:05"))
	if r.Service.Refused != "" {
		fmt.Fprintf(&b, "               as it is now it was refused: %s\n", printable(r.Service.Refused))
	}
	for i, s := range r.Service.Sockets {
		fmt.Fprintf(&b, "%-14s %s\n", map[bool]string{true: "listening"}[i == 0], printable(s))
	}
	fmt.Fprintf(&b, "sessions       %d open, %d since the start\n", r.Sessions.Open, r.Sessions.Total)
	if r.Writer != nil {
		r.Writer.screen(&b)
	}
	b.WriteByte('\n')

	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "recipients\tdelivered\tdeferred\trefused\t/s\tMiB/s\t\n")
	for i, rate := range r.Rates {
		name := ""
		if i < len(rateWindows) {
			name = "last " + minutes(rateWindows[i])
		}
		tallyRow(w, name, rate.tally, float64(rate.Seconds))
	}
	tallyRow(w, "since the start", r.Totals, up.Seconds())
	w.Flush()

	if len(r.Lookups) > 0 {
		b.WriteByte('\n')
		w.Init(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(w, "lookups\t%s\t\n", strings.Join(lookupOutcomes[:], "\t"))
		for _, l := range r.Lookups {
			fmt.Fprintf(w, "%s\t", printable(l.Database))
			for _, name := range lookupOutcomes {
				fmt.Fprintf(w, "%d\t", l.Answers[name])
			}
			fmt.Fprintln(w)
		}
		w.Flush()
	}
	if len(r.Slowest) > 0 {
		b.WriteString("\nslowest mailboxes of the last quarter of an hour\n")
		for _, s := range r.Slowest {
			fmt.Fprintf(&b, "%10s  %s  %s  %s\n", s.Took.Round(10*time.Microsecond), s.Time.Local().Format(time.TimeOnly), printable(s.Mailbox), printable(s.ID))
		}
	}
	failureList(&b, "last deferred", r.Deferred)
	failureList(&b, "last refused", r.Refused)
	return b.String()
}

func tallyRow(w *tabwriter.Writer, name string, t tally, seconds float64) {
	seconds = max(seconds, 1)
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.1f\t%.2f\t\n", name, t.Delivered, t.Deferred, t.Refused,
		float64(t.Delivered+t.Deferred+t.Refused)/seconds, float64(t.Bytes)/seconds/(1<<20))
}

// failuresShown of those that the report has: a screen is not endless.
const failuresShown = 8

func failureList(b *strings.Builder, title string, list []failure) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	for _, f := range list[:min(len(list), failuresShown)] {
		fmt.Fprintf(b, "  %s  %s  %d %s", f.Time.Local().Format("01-02 15:04:05"), printable(f.To), f.Code, printable(f.Enhanced))
		if f.QueueID != "" {
			fmt.Fprintf(b, "  queue id %s", printable(f.QueueID))
		}
		fmt.Fprintf(b, "\n      %s\n", printable(f.Error))
	}
}

// printable keeps what came from the wire from acting on the terminal.
func printable(s string) string { return string(appendPrintable(nil, s)) }

func minutes(d time.Duration) string {
	if d == time.Minute {
		return "minute"
	}
	return fmt.Sprintf("%d minutes", int(d.Minutes()))
}

// uptime is "3d 04:05:06", "04:05:06" in the first day.
func uptime(d time.Duration) string {
	s := int64(max(d, 0).Seconds())
	clock := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		return fmt.Sprintf("%dd %s", days, clock)
	}
	return clock
}
