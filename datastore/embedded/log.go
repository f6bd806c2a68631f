package embedded

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger hands what etcd logs to a logger of ours.
func logger(to *slog.Logger) *zap.Logger {
	if to == nil {
		return zap.NewNop()
	}
	return zap.New(&bridge{to.Handler()})
}

// bridge is a core of zap over a handler of slog.
type bridge struct{ slog.Handler }

// level is zap's in slog's numbers; what is worse than an error is one.
func level(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug
	case l < zapcore.WarnLevel:
		return slog.LevelInfo
	case l < zapcore.ErrorLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled reports whether a level is logged.
func (b *bridge) Enabled(l zapcore.Level) bool {
	return b.Handler.Enabled(context.Background(), level(l))
}

// With adds fields to every line.
func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{b.WithAttrs(attrs(fields))}
}

// Check has an entry written if its level is logged.
func (b *bridge) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return checked.AddCore(e, b)
	}
	return checked
}

// Write logs an entry.
func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, level(e.Level), e.Message, 0)
	r.AddAttrs(attrs(fields)...)
	return b.Handle(context.Background(), r)
}

// Sync has nothing to do: lines are written when they come.
func (b *bridge) Sync() error { return nil }

// attrs are fields in slog's words.
func attrs(fields []zapcore.Field) []slog.Attr {
	m := zapcore.NewMapObjectEncoder()
	as := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		f.AddTo(m)
		if v, ok := m.Fields[f.Key]; ok {
			as = append(as, slog.Any(f.Key, v))
		}
	}
	return as
}
