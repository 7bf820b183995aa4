package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/target"
)

// session is a server that is ready to be measured, and what it is asked.
type session struct {
	address  string
	info     target.Info
	tenants  []*target.Tenant
	options  load.Options
	describe string // what the images are

	server *target.Server // nil for one that ran already
	conn   *grpc.ClientConn
	lanes  *load.Lanes
	made   []*target.Tenant // to be removed
}

// open finds or starts the server and prepares it. The caller closes the session.
func (f *loadFlags) open(ctx context.Context, bars *phases) (_ *session, err error) {
	s := &session{address: f.server}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	key := ""
	if f.server == "" {
		step := bars.begin("starting the server", 1)
		if s.server, err = target.Start(ctx, f.child.ServerOptions); err != nil {
			return nil, err
		}
		step()
		s.address, key = s.server.Address, s.server.AdminKey
		s.options.ServerPID = s.server.PID()
	} else {
		data, err := os.ReadFile(f.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--api-key-file: %w", err)
		}
		key = strings.TrimSpace(string(data))
	}
	dialer, err := target.NewDialer(s.address, f.ca, f.remote)
	if err != nil {
		return nil, err
	}
	if s.conn, err = dialer.Dial(); err != nil {
		return nil, err
	}
	if s.info, err = target.Describe(ctx, s.conn, key); err != nil {
		return nil, err
	}
	if err := f.populate(ctx, s, key, bars); err != nil {
		return nil, err
	}
	keys := make([]string, len(s.tenants))
	for i, t := range s.tenants {
		keys[i] = t.GateKey
	}
	if s.lanes, err = load.NewLanes(context.Background(), dialer, f.lanes, keys...); err != nil {
		return nil, err
	}
	s.options.Caller, s.options.Mix, s.options.Spacing, s.options.Seed = s.lanes, f.parsedMix, load.Spacing(f.arrivals), f.seed
	s.options.Deadline, s.options.Outstanding = f.deadline, f.outstanding
	return s, f.encode(s, bars)
}

// populate makes the tenants, or takes the one that is there.
func (f *loadFlags) populate(ctx context.Context, s *session, key string, bars *phases) error {
	if f.scope != "" {
		s.tenants = []*target.Tenant{{Scope: f.scope, GateKey: key, ModelID: s.info.ModelID, Dim: s.info.Dim, Seed: f.seed}}
		return nil
	}
	opt := target.PopulateOptions{Tenants: f.tenants, Gallery: f.gallery, Seed: f.seed, Progress: bars.begin}
	if f.parsedMix.Needs(target.Crop) || f.parsedMix.Needs(target.JPEGCrop) || f.parsedMix.Needs(target.Image) {
		opt.Faces = f.faces
	}
	made, err := target.Populate(ctx, s.conn, key, opt)
	s.tenants = made
	if s.server == nil {
		s.made = made
	}
	return err
}

// encode makes the requests beforehand.
func (f *loadFlags) encode(s *session, bars *phases) (err error) {
	var scenes [][]byte
	if f.parsedMix.Needs(target.Image) {
		s.describe = "drawn faces before a wall"
		if f.photos != "" {
			s.describe = "photographs"
			scenes, err = target.Photographs(f.photos)
		} else {
			scenes, err = target.DrawnScenes(f.seed)
		}
		if err != nil {
			return err
		}
	}
	step := bars.begin("encoding requests", len(s.tenants)*len(f.parsedMix))
	for _, t := range s.tenants {
		var piles [][]target.Request
		for _, share := range f.parsedMix {
			pile, err := t.Requests(share.Kind, f.requests, scenes)
			if err != nil {
				return err
			}
			piles = append(piles, pile)
			step()
		}
		s.options.Piles = append(s.options.Piles, piles)
	}
	return nil
}

// removeTimeout bounds the removal of what was made on a running server, also
// when the run was interrupted.
const removeTimeout = 2 * time.Minute

// errLeft: something of the benchmark is still on a server that goes on.
var errLeft = errors.New("a tenant of the benchmark is left on the server")

// close removes what was made and ends what was started.
func (s *session) close() error {
	var errs []error
	if s.lanes != nil {
		errs = append(errs, s.lanes.Close())
	}
	if len(s.made) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
		defer cancel()
		for _, t := range s.made {
			if err := t.Remove(ctx, s.conn); err != nil {
				errs = append(errs, fmt.Errorf("%w: %s, with what is in it: its scope is to be revoked and the tenant deleted (menshen tenants delete): %w", errLeft, t.Name, err))
			}
		}
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}
