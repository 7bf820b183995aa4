package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/menshen-io/menshen/matcher/signing"
)

// CheckpointType names the signed document's meaning and version.
const CheckpointType = "menshen.audit-checkpoint.v1"

// Checkpoint is the signed statement that a chain had this hash at this
// position. Kept elsewhere, it exposes every later change of what came before.
type Checkpoint struct {
	Head
	Time time.Time `json:"time"`
	// Pruned: the records up to the position were dropped when their retention
	// was over, and the chain goes on from the hash.
	Pruned bool `json:"pruned,omitempty"`
}

// ParseCheckpoint reads and verifies a checkpoint; errors are those of
// signing.Parse.
func ParseCheckpoint(doc []byte, keys signing.PublicKeys) (Checkpoint, signing.KeyID, error) {
	var c Checkpoint
	id, err := signing.Parse(doc, CheckpointType, keys, &c)
	if err == nil && !validChain(c.Chain) {
		err = fmt.Errorf("%w: it names no chain", signing.ErrForm)
	}
	return c, id, err
}

// Files beside a chain's segments.
const (
	checkpointFile = "checkpoint.json" // the newest
	prunedFile     = "pruned.json"     // where the chain begins, once it was pruned
)

// readStatement reads a checkpoint file beside a chain and verifies it; ok is
// false where there is none.
func readStatement(dir, name, chain string, keys signing.PublicKeys) (c Checkpoint, ok bool, err error) {
	doc, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	c, _, err = ParseCheckpoint(doc, keys)
	if err == nil && (c.Chain != chain || c.Pruned != (name == prunedFile)) {
		err = fmt.Errorf("%w: it is not this chain's %s", signing.ErrForm, name)
	}
	return c, err == nil, err
}

func (c Checkpoint) sign(key *signing.Key) ([]byte, error) {
	c.Time = c.Time.Round(0).UTC()
	doc, err := signing.Sign(key, CheckpointType, c)
	if err != nil {
		return nil, fmt.Errorf("sign a checkpoint of the audit log: %w", err)
	}
	return doc, nil
}

// writeStatement signs a checkpoint and replaces the file beside the chain,
// durably.
func writeStatement(dir, name string, c Checkpoint, key *signing.Key) ([]byte, error) {
	doc, err := c.sign(key)
	if err != nil {
		return nil, err
	}
	return doc, replaceDurably(filepath.Join(dir, name), doc)
}

// newExt ends the name of a file that is being written; Open removes it.
const newExt = ".new"

// replaceDurably puts a file in place: after a crash there is the old one or the
// whole new one.
func replaceDurably(path string, content []byte) (err error) {
	temp := path + newExt
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
