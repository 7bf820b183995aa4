package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/decode"
)

// version is the release, set by the linker (-X main.version=...).
var version = ""

// buildVersion is the release, or what Go's build information tells of a build
// from a checkout.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = "+" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = ".dirty"
		}
	}
	return "devel" + revision + changed
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		GroupID: "offline",
		Short:   "Print the version",
		Example: "  menshen version\n  menshen version --json",
		Args:    exactly(),
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		if c.json {
			return c.printJSON(map[string]string{
				"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				"onnxruntime": models.RuntimeVersion, "jpeg": decode.Decoder,
			})
		}
		_, err := fmt.Fprintf(c.stdout, "menshen %s (%s, %s/%s, for ONNX Runtime %s, JPEG by %s)\n",
			buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, models.RuntimeVersion, decode.Decoder)
		return err
	}
	return cmd
}
