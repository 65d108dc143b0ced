// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// mixedLevels is what Envoy logs if its loggers have different levels.
const mixedLevels = "mixed"

// LogLevel is what Envoy logs now: trace, debug, info, warning, error, critical, off, or
// mixed.
func (e *Envoy) LogLevel(ctx context.Context) (string, error) {
	text, err := e.request(ctx, http.MethodPost, "/logging")
	if err != nil {
		return "", fmt.Errorf("ask for envoy's log level: %w", err)
	}
	level := ""
	for line := range strings.Lines(text) {
		// "  admin: info", after a line that says what follows.
		name, now, ok := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case !ok || name == "":
		case level != "" && now != level:
			return mixedLevels, nil
		default:
			level = now
		}
	}
	if level == "" {
		return "", errors.New("envoy names no logger")
	}
	return level, nil
}

// SetLogLevel sets that of all of Envoy's loggers.
func (e *Envoy) SetLogLevel(ctx context.Context, level string) error {
	if _, err := e.request(ctx, http.MethodPost, "/logging?level="+url.QueryEscape(level)); err != nil {
		return fmt.Errorf("set envoy's log level: %w", err)
	}
	return nil
}

// ResetLogLevel has Envoy log what its command line says. It does nothing if Envoy isn't
// running.
func (e *Envoy) ResetLogLevel(ctx context.Context) error {
	text, err := e.request(ctx, http.MethodGet, "/server_info")
	if Absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for envoy's command line: %w", err)
	}
	var info struct {
		Options struct {
			Level      string `json:"log_level"`
			Components string `json:"component_log_level"`
		} `json:"command_line_options"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		return fmt.Errorf("read envoy's command line: %w", err)
	}
	if err := e.SetLogLevel(ctx, info.Options.Level); err != nil || info.Options.Components == "" {
		return err
	}
	if _, err := e.request(ctx, http.MethodPost, "/logging?paths="+url.QueryEscape(info.Options.Components)); err != nil {
		return fmt.Errorf("set the log levels of envoy's components: %w", err)
	}
	return nil
}
