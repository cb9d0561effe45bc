package config

import "log/slog"

// LogLevel is what a verbosity (-v) stands for: 4 and more shows decisions too.
func LogLevel(verbosity uint32) slog.Level {
	if verbosity >= 4 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
