package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// parseInstant reads an instant as people write it on a command line: RFC 3339,
// or +DURATION from now.
func parseInstant(name, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if after, ok := strings.CutPrefix(text, "+"); ok {
		d, err := parseDuration(name, after)
		if err != nil {
			return nil, err
		}
		return timestamppb.New(now.Add(d)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usagef("--%s: %q is not an instant; write it like 2026-12-31T18:00:00+08:00, or +30d for 30 days from now", name, text)
	}
	return timestamppb.New(t), nil
}

// parseDuration reads a Go duration or a whole number of days such as 30d.
func parseDuration(name, text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err == nil && n >= 0 && n <= 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, usagef("--%s: %q is not a duration; write it like 12h, 90m or 30d", name, text)
}

// tenantName gives tenants/T for T or tenants/T; empty stays empty.
func tenantName(text string) string {
	if text == "" || strings.HasPrefix(text, "tenants/") {
		return text
	}
	return "tenants/" + text
}

// scopeName gives tenants/T/scopes/S for that, or for S and a tenant. An empty
// text stays empty: the credential's only scope.
func scopeName(text, tenant string) (string, error) { return nameIn(tenant, "scope", text) }

// receiptName gives tenants/T/receipts/R for that, or for R and a tenant.
func receiptName(text, tenant string) (string, error) { return nameIn(tenant, "receipt", text) }

// nameIn completes the name of a kind of thing that tenants have.
func nameIn(tenant, kind, text string) (string, error) {
	switch {
	case text == "" || strings.Contains(text, "/"):
		return text, nil
	case tenant == "":
		return "", usagef("%s %q: write tenants/T/%ss/%s, or give --tenant or MENSHEN_TENANT", kind, text, kind, text)
	}
	return tenantName(tenant) + "/" + kind + "s/" + text, nil
}

// tenantDefault is the tenant that --tenant means when it is not given.
func tenantDefault() string { return os.Getenv("MENSHEN_TENANT") }

const tenantUsage = "tenant id [MENSHEN_TENANT]"

// plural writes a number with its noun.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
