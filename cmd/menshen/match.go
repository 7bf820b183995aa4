package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/cmd/menshen/internal/client"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) verifyCommand() *cobra.Command {
	var (
		req  menshenv1.VerifyRequest
		crop bool
	)
	cmd := &cobra.Command{
		Use:     "verify --subject SUBJECT IMAGE",
		GroupID: "faces",
		Short:   "Ask whether an image shows one claimed subject (gate)",
		Long: `Compare the face of an image with the templates of one subject (1:1).

A subject that is not enrolled is answered like one whose face does not match.
Exit status: 0 match, 3 no match, 4 use the alternative, 1 error.`,
		Example: `  menshen verify --subject tenants/acme/scopes/hall-a/subjects/v-0412 face.jpg
  menshen verify --subject v-0412 --api-key-file gate.key --json face.jpg`,
		Args: exactly("IMAGE"),
	}
	cmd.Flags().StringVar(&req.Subject, "subject", "", "the claimed subject, tenants/T/scopes/S/subjects/U, or U where the key covers one scope (required)")
	cmd.Flags().BoolVar(&crop, "crop", false, cropUsage)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		if req.Subject == "" {
			return usagef("--subject is missing: whom does the image claim to show? (\"menshen identify\" searches)")
		}
		var err error
		if req.Probe, err = readProbe(args[0], crop); err != nil {
			return err
		}
		resp, err := menshenv1.NewMatchServiceClient(conn).Verify(ctx, &req)
		if err != nil {
			return blame(err, args)
		}
		if c.json {
			err = c.printMessage(resp.Decision)
		} else {
			err = c.printDecision(resp.Decision)
		}
		if err != nil {
			return err
		}
		return decided(resp.Decision.GetOutcome())
	})
}

func (c *cli) printDecision(d *menshenv1.Decision) error {
	fields := []string{
		"outcome", outcomeText(d.Outcome), "score", scoreText(d), "threshold", fmt.Sprintf("%.4f", d.Threshold),
		"subject", d.Subject, "template", d.Template, "scope", d.Scope, "alternative", d.Alternative, "face", faceText(d.Face),
	}
	for _, f := range d.Findings {
		fields = append(fields, "finding", findingText(f))
	}
	return c.printFields(append(fields, "model", d.ModelId, "decision", d.DecisionId, "time", timeText(d.DecideTime))...)
}

func (c *cli) identifyCommand() *cobra.Command {
	var (
		req                  menshenv1.IdentifyRequest
		scope, tenant, faces string
		crop                 bool
	)
	cmd := &cobra.Command{
		Use:     "identify IMAGE...",
		GroupID: "faces",
		Short:   "Ask who of a scope an image shows (gate)",
		Long: `Search a scope's gallery for the faces of one or more images (1:N).

Every face gets a line of its own, the largest first; with --faces dominant only
the largest is looked at, as a gate for one person does it. With --json every
image gives one line {"file": ..., "results": [...]} or {"file": ..., "error": ...}.
An image that fails does not stop the others.

Exit status: 1 if an image failed; otherwise 0 if a face matched, 3 if none did,
4 if there was nothing to compare.`,
		Example: `  menshen identify --scope tenants/acme/scopes/hall-a two_people.jpg
  menshen identify --api-key-file gate.key --faces dominant --max-candidates 5 *.jpg
  menshen identify --api-key-file gate.key --json *.jpg | jq .results[].decision.subject`,
		Args: atLeastOne("IMAGE"),
	}
	f := cmd.Flags()
	f.StringVar(&scope, "scope", "", "the scope, tenants/T/scopes/S; by default the key's only one")
	f.StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	f.StringVar(&faces, "faces", "each", "each: a decision for every face; dominant: for the largest only")
	f.Int32Var(&req.MaxCandidates, "max-candidates", 0, "candidates per face, at most 100; 0 means 1")
	f.BoolVar(&crop, "crop", false, cropUsage)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		var err error
		if req.Scope, err = scopeName(scope, tenant); err != nil {
			return err
		}
		switch faces {
		case "each":
			req.FacePolicy = menshenv1.FacePolicy_FACE_POLICY_EACH
		case "dominant":
			req.FacePolicy = menshenv1.FacePolicy_FACE_POLICY_DOMINANT
		default:
			return usagef("--faces: %q is neither each nor dominant", faces)
		}
		return c.identifyFiles(ctx, menshenv1.NewMatchServiceClient(conn), &req, args, crop)
	})
}

// identifyFiles sends the images one after the other and prints the answers.
func (c *cli) identifyFiles(ctx context.Context, api menshenv1.MatchServiceClient, req *menshenv1.IdentifyRequest, paths []string, crop bool) error {
	t := newTable("FILE", "FACE", "OUTCOME", "SUBJECT", "SCORE", "THRESHOLD", "BOX", "FINDINGS")
	outcomes := map[menshenv1.Outcome]bool{}
	failed := 0
	for _, path := range paths {
		var resp *menshenv1.IdentifyResponse
		probe, err := readProbe(path, crop)
		if err == nil {
			req.Probe = probe
			if resp, err = api.Identify(ctx, req); err != nil {
				err = fmt.Errorf("%s: %w", path, err)
			}
		}
		if ctx.Err() != nil {
			break // what was found so far is printed
		}
		if err != nil {
			failed++
			if !c.json {
				client.Explain(err).WriteText(c.stderr)
			} else if err := c.printLine(map[string]any{"file": path, "error": client.Explain(err)}); err != nil {
				return err
			}
			continue
		}
		if n := len(resp.Results); n > 1 {
			if more := int(resp.Results[0].GetDecision().GetFace().GetFacesInImage()) - n; more > 0 {
				fmt.Fprintf(c.stderr, "menshen: %s: %d further faces were not searched for: the server looks for the %d largest\n", path, more, n)
			}
		}
		for i, r := range resp.Results {
			outcomes[r.Decision.GetOutcome()] = true
			identifyRows(t, path, i+1, r)
		}
		if len(resp.Results) == 0 {
			t.row(path, "", "NO_FACE")
		}
		if c.json {
			raw, err := messageJSON(resp)
			if err != nil {
				return err
			}
			if err := c.printFileLine(path, raw); err != nil {
				return err
			}
		}
	}
	if !c.json && len(t.rows) > 1 {
		if err := c.printTable(t, ""); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case failed > 0:
		return exitStatus(exitError)
	case outcomes[menshenv1.Outcome_OUTCOME_MATCH]:
		return nil
	case outcomes[menshenv1.Outcome_OUTCOME_NO_MATCH]:
		return exitStatus(exitNoMatch)
	}
	return exitStatus(exitUseAlternative)
}

// identifyRows adds the decision for one face and its further candidates.
func identifyRows(t *table, path string, number int, r *menshenv1.FaceResult) {
	d := r.Decision
	t.row(path, fmt.Sprint(number), outcomeText(d.GetOutcome()), d.GetSubject(), scoreText(d),
		fmt.Sprintf("%.4f", d.GetThreshold()), faceText(d.GetFace()), findingCodes(d.GetFindings()))
	for _, cand := range r.Candidates {
		if cand.Subject != d.GetSubject() {
			t.row("", "", "candidate", cand.Subject, fmt.Sprintf("%.4f", cand.Score), "", "", "")
		}
	}
}

// printFileLine writes one JSON line: the file, then the fields of object.
func (c *cli) printFileLine(file string, object json.RawMessage) error {
	name, err := json.Marshal(file)
	if err != nil {
		return err
	}
	rest := strings.TrimPrefix(string(object), "{")
	if rest != "}" {
		rest = "," + rest
	}
	_, err = fmt.Fprintf(c.stdout, "{\"file\":%s%s\n", name, rest)
	return err
}

// decided turns an outcome into the exit status of verify.
func decided(o menshenv1.Outcome) error {
	switch o {
	case menshenv1.Outcome_OUTCOME_MATCH:
		return nil
	case menshenv1.Outcome_OUTCOME_NO_MATCH:
		return exitStatus(exitNoMatch)
	case menshenv1.Outcome_OUTCOME_USE_ALTERNATIVE:
		return exitStatus(exitUseAlternative)
	}
	return fmt.Errorf("the server answered with an outcome that this version does not know (%s); treat it as no match", o)
}

func outcomeText(o menshenv1.Outcome) string {
	return strings.TrimPrefix(o.String(), "OUTCOME_")
}

func scoreText(d *menshenv1.Decision) string {
	if d == nil || d.Score == nil {
		return ""
	}
	return fmt.Sprintf("%.4f", *d.Score)
}

func faceText(f *menshenv1.DetectedFace) string {
	if f.GetBox() == nil {
		return ""
	}
	return fmt.Sprintf("%.0f,%.0f %.0fx%.0f", f.Box.X, f.Box.Y, f.Box.Width, f.Box.Height)
}
