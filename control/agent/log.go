package agent

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// counted is a log that counts its lines of level error.
func counted(log *slog.Logger) (*slog.Logger, *atomic.Uint64) {
	lines := new(atomic.Uint64)
	return slog.New(&counter{log.Handler(), lines}), lines
}

// counter is a handler that counts, and then another one.
type counter struct {
	slog.Handler
	lines *atomic.Uint64
}

// Enabled implements slog.Handler: errors are counted, written or not.
func (c *counter) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError || c.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (c *counter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		c.lines.Add(1)
	}
	if !c.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return c.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (c *counter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &counter{c.Handler.WithAttrs(attrs), c.lines}
}

// WithGroup implements slog.Handler.
func (c *counter) WithGroup(name string) slog.Handler {
	return &counter{c.Handler.WithGroup(name), c.lines}
}
