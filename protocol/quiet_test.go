package protocol_test

import "log/slog"

// quiet drops the log lines that a test provokes on purpose.
var quiet = slog.New(slog.DiscardHandler)
