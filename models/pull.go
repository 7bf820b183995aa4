package models

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"
)

const (
	// pullStall ends a download that has delivered nothing for so long.
	pullStall = 60 * time.Second
	// maxRedirects bounds the way from a release page to its storage.
	maxRedirects = 5
)

// defaultClient honours the proxy environment variables. It sets no limit on
// the whole download, which may be large and slow: Pull watches for a stall.
func defaultClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 30 * time.Second
	return &http.Client{Transport: t}
}

// Pull fetches the file of a pinned model from the place that its manifest
// names, checks its sha256 and puts it into the registry's folder. progress, if
// not nil, is called from Pull's goroutine with the bytes received so far and
// the total (0: not known). A model that is here already is not fetched again;
// a damaged one is. The file appears whole or not at all.
//
// Pull is the only thing in this package that opens a network connection. It
// wants HTTPS, at every redirect too (plain HTTP only from this machine
// itself), and a manifest that pins the hash.
func (r *Registry) Pull(ctx context.Context, name string, progress func(done, total int64)) error {
	if _, ok := r.builtin(name); ok {
		return nil
	}
	m, err := r.manifest(name)
	if err != nil {
		return err
	}
	if r.dir == "" {
		return fmt.Errorf("%w: %w", ErrPull, r.dirErr)
	}
	dst := r.modelPath(name)
	if hasHash(dst, m.SHA256) {
		return nil
	}
	switch {
	case m.Source.URL == "":
		return fmt.Errorf("%w: the manifest of %s names no source; import a local copy", ErrPull, name)
	case m.SHA256 == "":
		return fmt.Errorf("%w: the manifest of %s pins no sha256, so nobody could tell what was fetched; fetch it by hand and import it", ErrPull, name)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return fmt.Errorf("%w: %v; choose a models folder that can be written", ErrPull, err)
	}
	download, err := os.CreateTemp(r.dir, ".pull-*")
	if err != nil {
		return fmt.Errorf("%w: %v; choose a models folder that can be written", ErrPull, err)
	}
	defer os.Remove(download.Name())
	defer download.Close()

	r.log.Info("fetching model", "model", name, "url", m.Source.URL)
	if err := r.download(ctx, m.Source, download, progress); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPull, name, err)
	}
	file := download
	if m.Source.ArchiveMember != "" {
		if file, err = unzipMember(ctx, download, r.dir, m.Source.ArchiveMember); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrPull, name, err)
		}
		defer os.Remove(file.Name())
		defer file.Close()
	}
	return settle(file, dst, m)
}

// download streams the source into w.
func (r *Registry) download(ctx context.Context, src Source, w io.Writer, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("no data for %v; check the network and try again", pullStall)
	watch := time.AfterFunc(pullStall, func() { cancel(stalled) })
	defer watch.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.URL, nil)
	if err != nil {
		return err
	}
	if err := allowedURL(req.URL); err != nil {
		return err
	}
	client := *r.client
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return allowedURL(req.URL)
	}
	resp, err := client.Do(req)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s; the file may have moved: fetch it by hand and import it", req.URL.Host, resp.Status)
	}
	limit := int64(maxModelBytes)
	if src.Size > 0 {
		limit = src.Size
	}
	if resp.ContentLength > limit {
		return fmt.Errorf("%s wants to send %d bytes, at most %d are taken", req.URL.Host, resp.ContentLength, limit)
	}
	total := max(resp.ContentLength, src.Size)
	var done int64
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			watch.Reset(pullStall)
			if done += int64(n); done > limit {
				return fmt.Errorf("%s sent more than %d bytes", req.URL.Host, limit)
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if progress != nil {
				progress(done, total)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
}

// causeOf prefers the reason why ctx ended to the error that it led to.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// allowedURL refuses anything but HTTPS, except from this machine itself.
func allowedURL(u *url.URL) error {
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		host := u.Hostname()
		if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("%s://%s is not HTTPS; refused", u.Scheme, u.Host)
}

// unzipMember unpacks one member of a zip archive into a new temporary file in
// dir. A member is found by its path, or else by its base name where that is
// the name of exactly one member.
func unzipMember(ctx context.Context, archive *os.File, dir, member string) (*os.File, error) {
	fi, err := archive.Stat()
	if err != nil {
		return nil, err
	}
	zr, err := zip.NewReader(archive, fi.Size())
	if err != nil {
		return nil, fmt.Errorf("what was fetched is not a zip archive: %w", err)
	}
	var found []*zip.File
	for _, f := range zr.File {
		if f.Name == member {
			found = []*zip.File{f}
			break
		}
		if path.Base(f.Name) == path.Base(member) && !f.FileInfo().IsDir() {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("the archive holds %d files named %s, one is wanted", len(found), member)
	}
	if found[0].UncompressedSize64 > maxModelBytes {
		return nil, fmt.Errorf("%s would unpack to %d bytes, at most %d are taken", member, found[0].UncompressedSize64, int64(maxModelBytes))
	}
	src, err := found[0].Open()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	out, err := os.CreateTemp(dir, ".pull-*")
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(out, io.LimitReader(&contextReader{ctx, src}, maxModelBytes+1))
	if err == nil && n > maxModelBytes {
		err = fmt.Errorf("%s unpacks to more than %d bytes", member, int64(maxModelBytes))
	}
	if err != nil {
		out.Close()
		os.Remove(out.Name())
		return nil, err
	}
	return out, nil
}

// contextReader ends a long copy when ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// settle checks the hash of a temporary file, makes it durable and gives it its
// name.
func settle(f *os.File, dst string, m *Manifest) error {
	sum, err := hashFile(f)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrPull, err)
	}
	if sum != m.SHA256 {
		return fmt.Errorf("%w: what was fetched for %s has sha256 %s, its manifest pins %s; nothing was kept. Try again; if it stays so, the source has changed", ErrHashMismatch, m.Name, sum, m.SHA256)
	}
	if err := publish(f, dst); err != nil {
		return fmt.Errorf("%w: %v", ErrPull, err)
	}
	return nil
}

// publish makes a temporary file durable and renames it to dst.
func publish(f *os.File, dst string) error {
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), dst); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(dst))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// hashFile returns the sha256 of an open file, from its start.
func hashFile(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hasHash reports whether path is a readable file with this sha256.
func hasHash(path, sum string) bool {
	f, err := os.Open(path)
	if err != nil || sum == "" {
		return false
	}
	defer f.Close()
	got, err := hashFile(f)
	return err == nil && got == sum
}
