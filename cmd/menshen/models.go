package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
	"github.com/menshen-io/menshen/models"
	"github.com/menshen-io/menshen/models/pipeline"
)

func (c *cli) modelsCommand() *cobra.Command {
	return group("models", "offline", "List, fetch, import and check models",
		`Menshen runs ONNX models: a detector that finds faces and an embedder that
compares them. Known public models are pinned by sha256 and are fetched when
you ask for it, never by themselves; read their licence first. The built-in
reference model needs no file; it is for evaluation only.

The ONNX Runtime library is looked for at --runtime, $`+models.LibraryEnv+`, beside the
program and in ../lib, in menshen/onnxruntime/`+models.RuntimeVersion+` in your cache folder, and
on the system's library path. "make runtime" puts it into the cache folder.`,
		c.modelsList(), c.modelsShow(), c.modelsVerify(), c.modelsImport(), c.modelsPull())
}

// registry opens the registry without the ONNX Runtime, which listing, checking
// and fetching do not need.
func (m *modelFlags) registry() (*models.Registry, error) {
	return pipeline.OpenRegistry(m.dir, nil, nil, slog.New(slog.DiscardHandler))
}

// modelRow is a model in the form of --json.
type modelRow struct {
	Name          string            `json:"name"`
	ID            string            `json:"id,omitempty"`
	Kind          models.Kind       `json:"kind,omitempty"`
	State         models.State      `json:"state"`
	Problem       string            `json:"problem,omitempty"`
	Path          string            `json:"path,omitempty"`
	Title         string            `json:"title,omitempty"`
	SHA256        string            `json:"sha256,omitempty"`
	License       string            `json:"license,omitempty"`
	LicenseURL    string            `json:"license_url,omitempty"`
	NonCommercial bool              `json:"non_commercial"`
	Evaluation    bool              `json:"evaluation"`
	URL           string            `json:"url,omitempty"`
	Dimension     int               `json:"dimension,omitempty"`
	Threshold     float64           `json:"threshold,omitempty"`
	Calibration   []calibrationJSON `json:"calibration,omitempty"`
}

type calibrationJSON struct {
	FMR    float64 `json:"fmr"`
	Score  float64 `json:"score"`
	Source string  `json:"source"`
}

func newModelRow(e models.Entry) modelRow {
	m := e.Manifest
	row := modelRow{
		Name: m.Name, Kind: m.Kind, State: e.State, Problem: e.Problem, Path: e.Path, Title: m.Title,
		SHA256: m.SHA256, License: m.License, LicenseURL: m.LicenseURL, NonCommercial: m.NonCommercial,
		Evaluation: m.Evaluation, URL: m.Source.URL, Dimension: m.Output.Dimension, Threshold: m.Threshold,
	}
	if m.SHA256 != "" {
		row.ID = m.ID()
	}
	for _, p := range m.Calibration {
		row.Calibration = append(row.Calibration, calibrationJSON(p))
	}
	return row
}

// licenseText says in one cell what a model may be used for.
func licenseText(m models.Manifest) string {
	switch {
	case m.Evaluation:
		return "evaluation only"
	case m.NonCommercial:
		return m.License + " (NON-COMMERCIAL)"
	}
	return m.License
}

func (c *cli) modelsList() *cobra.Command {
	var mf modelFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the known models and whether their files are here",
		Example: "  menshen models list\n  menshen models list --json | jq -r '.[] | select(.state==\"present\") | .name'",
		Args:    exactly(),
	}
	mf.addFlags(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		reg, err := mf.registry()
		if err != nil {
			return err
		}
		entries, err := reg.List()
		if err != nil {
			return err
		}
		rows := []modelRow{}
		t := newTable("NAME", "KIND", "STATE", "DIM", "THRESHOLD", "LICENCE")
		for _, e := range entries {
			rows = append(rows, newModelRow(e))
			dim, threshold := "", ""
			if e.Manifest.Output.Dimension > 0 {
				dim = fmt.Sprint(e.Manifest.Output.Dimension)
			}
			if e.Manifest.Threshold > 0 {
				threshold = fmt.Sprintf("%.3f", e.Manifest.Threshold)
			}
			t.row(e.Manifest.Name, string(e.Manifest.Kind), string(e.State), dim, threshold, licenseText(e.Manifest))
		}
		if c.json {
			return c.printJSON(rows)
		}
		if err := c.printTable(t, ""); err != nil {
			return err
		}
		fmt.Fprintf(c.stderr, "Files are kept in %s\n", reg.Dir())
		return nil
	}
	return cmd
}

func (c *cli) modelsShow() *cobra.Command {
	var mf modelFlags
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a model's manifest: preprocessing, licence, source, calibration",
		Example: "  menshen models show sface-2021dec",
		Args:    exactly("NAME"),
	}
	mf.addFlags(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		reg, err := mf.registry()
		if err != nil {
			return err
		}
		e, err := reg.Lookup(args[0])
		if err != nil {
			return err
		}
		if c.json {
			return c.printJSON(newModelRow(e))
		}
		text, err := e.Manifest.Marshal()
		if err != nil {
			return err
		}
		where := ""
		if e.Path != "" {
			where = " " + e.Path
		}
		if e.Problem != "" {
			where += ": " + e.Problem
		}
		_, err = fmt.Fprintf(c.stdout, "# %s:%s\n%s", e.State, where, text)
		return err
	}
	return cmd
}

func (c *cli) modelsVerify() *cobra.Command {
	var mf modelFlags
	cmd := &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "Check model files against their pinned sha256",
		Long:  "Check the named models, or all whose files are here. Exit status 1 if one is damaged or missing.",
		Example: `  menshen models verify
  menshen models verify yunet-2023mar sface-2021dec`,
		Args: cobra.ArbitraryArgs,
	}
	mf.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reg, err := mf.registry()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			entries, err := reg.List()
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.State != models.StateAbsent {
					args = append(args, e.Manifest.Name)
				}
			}
		}
		failed := false
		for _, name := range args {
			if err := reg.Verify(cmd.Context(), name); err != nil {
				failed = true
				fmt.Fprintf(c.stderr, "menshen: %v\n", err)
				continue
			}
			fmt.Fprintf(c.stdout, "%s: ok\n", name)
		}
		if failed {
			return exitStatus(exitError)
		}
		return nil
	}
	return cmd
}

func (c *cli) modelsImport() *cobra.Command {
	var (
		mf  modelFlags
		opt models.ImportOptions
	)
	cmd := &cobra.Command{
		Use:   "import FILE.onnx",
		Short: "Copy a local model file into the registry and pin its sha256",
		Long: `Copy a local .onnx file into the registry. Its manifest is --manifest, or the .yaml
file of the same name beside it, or a pinned one with the same sha256; without
any of them the file's inputs and outputs are looked at, and what was taken for
granted is said. The file is loaded once to see that it can be run.`,
		Example: `  menshen models import ./w600k_mbf.onnx
  menshen models import ./ours.onnx --manifest ./ours.yaml --name ours-2026`,
		Args: exactly("FILE.onnx"),
	}
	mf.addFlags(cmd)
	cmd.Flags().StringVar(&opt.Name, "name", "", "name in the registry (default: from the manifest or the file's name)")
	cmd.Flags().StringVar(&opt.Manifest, "manifest", "", "the model's manifest (.yaml)")
	cmd.Flags().BoolVar(&opt.Replace, "replace", false, "replace an imported model of the same name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !strings.HasSuffix(strings.ToLower(args[0]), ".onnx") {
			if _, err := os.Stat(args[0]); err != nil {
				return err
			}
			return usagef("%s is not a .onnx file; name the model file, and its manifest with --manifest", args[0])
		}
		rt, err := models.OpenRuntime(models.RuntimeOptions{Library: mf.runtime})
		if err != nil {
			return err
		}
		defer rt.Close()
		reg, err := pipeline.OpenRegistry(mf.dir, rt, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		res, err := reg.Import(cmd.Context(), args[0], opt)
		if err != nil {
			return err
		}
		for _, note := range res.Notes {
			fmt.Fprintf(c.stderr, "menshen: note: %s\n", note)
		}
		fmt.Fprintf(c.stdout, "imported %s (%s) as %s\n", args[0], res.Manifest.Kind, res.Manifest.ID())
		return nil
	}
	return cmd
}

func (c *cli) modelsPull() *cobra.Command {
	var (
		mf     modelFlags
		accept bool
	)
	cmd := &cobra.Command{
		Use:   "pull NAME...",
		Short: "Fetch known public models and check their sha256",
		Long: `Fetch the file of one or more known models from the place that the manifest names,
and check its sha256. A model whose licence excludes commercial use needs
--accept-non-commercial.`,
		Example: `  menshen models pull yunet-2023mar sface-2021dec
  menshen models pull insightface-buffalo-s --accept-non-commercial`,
		Args: atLeastOne("NAME"),
	}
	mf.addFlags(cmd)
	cmd.Flags().BoolVar(&accept, "accept-non-commercial", false, "the models are not used commercially")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reg, err := mf.registry()
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range args {
			e, err := reg.Lookup(name)
			if err == nil && e.Manifest.NonCommercial && !accept {
				err = fmt.Errorf("%s may not be used commercially (%s, %s); give --accept-non-commercial if that suits you", name, e.Manifest.License, e.Manifest.LicenseURL)
			}
			if err == nil {
				bar := screen.NewProgress(c.stderr, name, "bytes")
				err = reg.Pull(cmd.Context(), name, bar.Set)
				bar.End()
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Fprintf(c.stdout, "%s: here, sha256 checked (licence: %s)\n", name, licenseText(e.Manifest))
		}
		return errors.Join(errs...)
	}
	return cmd
}
