package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/menshen-io/menshen/matcher"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

const presetPrefix = "SCOPE_PRESET_"

func presetText(p menshenv1.ScopePreset) string {
	if p == menshenv1.ScopePreset_SCOPE_PRESET_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(p.String(), presetPrefix))
}

func presetNames() (names []string) {
	for _, a := range matcher.Presets() {
		names = append(names, string(a.Preset))
	}
	return names
}

// readPreset reads a preset as people write it; empty is none.
func readPreset(text string) (menshenv1.ScopePreset, error) {
	if text == "" {
		return menshenv1.ScopePreset_SCOPE_PRESET_UNSPECIFIED, nil
	}
	if !slices.Contains(presetNames(), text) {
		return 0, usagef("--preset: %q is not known; there are %s", text, strings.Join(presetNames(), ", "))
	}
	return menshenv1.ScopePreset(menshenv1.ScopePreset_value[presetPrefix+strings.ToUpper(text)]), nil
}

// onText is the text of a setting that is on, and nothing for one that is off.
func onText(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

// presetView is a preset as --json shows it.
type presetView struct {
	Preset               string `json:"preset"`
	For                  string `json:"for"`
	Why                  string `json:"why"`
	Alternative          string `json:"alternative"`
	LegalBasis           string `json:"legal_basis"`
	Retention            string `json:"retention"`
	End                  string `json:"end"`
	MaxTemplates         int    `json:"max_templates_per_subject"`
	TransmissionRequired bool   `json:"transmission_consent_required"`
	SingleUse            bool   `json:"single_use"`
}

func viewPreset(a matcher.Advice) presetView {
	v := presetView{
		Preset: string(a.Preset), For: a.For, Why: a.Why, Alternative: a.Alternative.String(), LegalBasis: a.LegalBasis.String(),
		Retention: durationText(durationpb.New(a.Retention)), End: "yours to say", MaxTemplates: a.MaxTemplates,
		TransmissionRequired: a.Transmission, SingleUse: a.SingleUse,
	}
	if a.Period > 0 {
		v.End = durationText(durationpb.New(a.Period)) + " from the creation"
	}
	if v.MaxTemplates == 0 {
		v.MaxTemplates = matcher.DefaultMaxTemplates
	}
	return v
}

func (c *cli) scopesPresets() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "presets",
		Short:   "Show what the presets of kinds of places say, and why (no server needed)",
		Long:    "Show what the presets say, and why. A preset fills only what is left open when a scope\nis created; consent that it asks for and single use stay on.",
		Example: "  menshen scopes presets\n  menshen scopes presets --json",
		Args:    exactly(),
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		var views []presetView
		for _, a := range matcher.Presets() {
			views = append(views, viewPreset(a))
		}
		if c.json {
			return c.printJSON(views)
		}
		for i, v := range views {
			if i > 0 {
				fmt.Fprintln(c.stdout)
			}
			if err := c.printFields(
				"preset", v.Preset, "for", v.For, "alternative", v.Alternative, "legal basis", v.LegalBasis,
				"end", v.End, "retention", v.Retention, "templates per subject", fmt.Sprintf("at most %d", v.MaxTemplates),
				"transmission", onText(v.TransmissionRequired, "separate consent is required"),
				"single use", onText(v.SingleUse, "a match erases the subject"), "why", v.Why); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
