package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func TestParseInstant(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"+30d":                      now.Add(30 * 24 * time.Hour),
		"+90m":                      now.Add(90 * time.Minute),
		"+0d":                       now,
		"2026-12-31T18:00:00+08:00": time.Date(2026, 12, 31, 10, 0, 0, 0, time.UTC),
	} {
		got, err := parseInstant("end", text, now)
		if err != nil || !got.AsTime().Equal(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if got, err := parseInstant("end", "", now); got != nil || err != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
	for _, text := range []string{"tomorrow", "2026-12-31", "+", "+-1h", "+1w", "+9999999d", "30d", "+1.5d"} {
		if _, err := parseInstant("end", text, now); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "--end") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestScopeName(t *testing.T) {
	for _, tc := range []struct{ text, tenant, want string }{
		{"", "", ""}, {"", "acme", ""},
		{"tenants/a/scopes/s", "acme", "tenants/a/scopes/s"},
		{"s", "acme", "tenants/acme/scopes/s"}, {"s", "tenants/acme", "tenants/acme/scopes/s"},
	} {
		if got, err := scopeName(tc.text, tc.tenant); got != tc.want || err != nil {
			t.Errorf("%q of %q: %q, %v", tc.text, tc.tenant, got, err)
		}
	}
	if _, err := scopeName("s", ""); !errors.Is(err, errUsage) {
		t.Errorf("a scope of no tenant: %v", err)
	}
}

func TestCredentialParent(t *testing.T) {
	gate, admin := menshenv1.Role_ROLE_GATE, menshenv1.Role_ROLE_PLATFORM_ADMIN
	for _, tc := range []struct {
		role   menshenv1.Role
		tenant string
		scopes []string
		want   string
	}{
		{gate, "", []string{"tenants/acme/scopes/s"}, "tenants/acme"},
		{gate, "other", []string{"tenants/acme/scopes/s"}, "tenants/other"}, // the server refuses it
		{gate, "", nil, ""},
		{gate, "", []string{"s"}, ""},
		{admin, "acme", nil, ""},
	} {
		if got := credentialParent(tc.role, tc.tenant, tc.scopes); got != tc.want {
			t.Errorf("%v: %q", tc, got)
		}
	}
}

func TestConfirmRevoke(t *testing.T) {
	s := &menshenv1.Scope{Name: "tenants/acme/scopes/hall-a", Purpose: "entry\x1b[2J", SubjectCount: 12, TemplateCount: 1}
	for answer, want := range map[string]bool{
		"hall-a\n": true, " hall-a \r\n": true, "hall-a": true,
		"\n": false, "": false, "y\n": false, "yes\n": false, "hall-b\n": false, "tenants/acme/scopes/hall-a\n": false, "HALL-A\n": false,
	} {
		var out strings.Builder
		d := deed{"revoke", "revoking", "revoked", s.Name}
		if err := d.ask(strings.NewReader(answer), &out, aboutRevoking(s)); (err == nil) != want {
			t.Errorf("%q: %v", answer, err)
		}
		if text := out.String(); !strings.Contains(text, "12 subjects and 1 template will be destroyed") || strings.Contains(text, "\x1b") {
			t.Errorf("asked: %q", text)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\tc\x1b[1m\u009bd 门"); got != "a b c [1m d 门" {
		t.Errorf("got %q", got)
	}
}

func TestRolesCoverTheAPI(t *testing.T) {
	for number, name := range menshenv1.Role_name {
		if number == 0 {
			continue
		}
		word := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "ROLE_")), "_", "-")
		role, err := parseRole(word)
		if err != nil || int32(role) != number || roleText(role) != word {
			t.Errorf("%s: %v, %v, %q", name, role, err, roleText(role))
		}
	}
}

// TestSettingFlagsCoverTheMask: every field that the API lets one update has
// its flag.
func TestSettingFlagsCoverTheMask(t *testing.T) {
	c := &cli{}
	cmd := c.scopesUpdate()
	fields := menshenv1.File_menshen_v1_scope_proto.Messages().ByName("Scope").Fields()
	flagged := map[string]bool{}
	for _, sf := range settingFlags {
		if cmd.Flags().Lookup(sf.flag) == nil {
			t.Errorf("no flag --%s", sf.flag)
		}
		flagged[sf.field] = true
	}
	readOnly := map[string]bool{"name": true, "state": true, "model_id": true, "epoch": true, "subject_count": true,
		"template_count": true, "create_time": true, "update_time": true, "revoke_time": true,
		"current_notice_version": true, "preset": true, "single_use": true} // the last two are decided on creation
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		if flagged[name] == readOnly[name] {
			t.Errorf("field %s: flag %v, set by the service %v", name, flagged[name], readOnly[name])
		}
	}
}

// TestEveryCommandHasHelp: each command that does something says what, and
// shows how.
func TestEveryCommandHasHelp(t *testing.T) {
	root := (&cli{}).rootCommand()
	for _, cmd := range root.Commands() {
		if name := cmd.Name(); name == "help" || name == "completion" {
			continue
		}
		leaves := cmd.Commands()
		if len(leaves) == 0 {
			leaves = append(leaves, cmd)
		}
		for _, leaf := range leaves {
			if leaf.Short == "" || !strings.Contains(leaf.Example, leaf.CommandPath()) {
				t.Errorf("%s: short %q, examples %q", leaf.CommandPath(), leaf.Short, leaf.Example)
			}
		}
	}
}
