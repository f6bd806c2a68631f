// Package middle is free to log.
package middle

import "log/slog"

// Name logs.
func Name() string {
	slog.Info("named")
	return "middle"
}
