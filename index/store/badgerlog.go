package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// badgerLog passes Badger's messages to slog. Its Info is our Debug: it tells of
// every flush. Keys that it prints are ids, values it never prints.
type badgerLog struct{ log *slog.Logger }

func (b badgerLog) say(level slog.Level, format string, args []any) {
	b.log.Log(context.Background(), level, "badger: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (b badgerLog) Errorf(format string, args ...any)   { b.say(slog.LevelError, format, args) }
func (b badgerLog) Warningf(format string, args ...any) { b.say(slog.LevelWarn, format, args) }
func (b badgerLog) Infof(format string, args ...any)    { b.say(slog.LevelDebug, format, args) }
func (b badgerLog) Debugf(string, ...any)               {}
