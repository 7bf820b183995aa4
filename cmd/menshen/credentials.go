package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

// roles are the words of --role.
var roles = []struct {
	word string
	role menshenv1.Role
	does string
}{
	{"platform-admin", menshenv1.Role_ROLE_PLATFORM_ADMIN, "manages tenants and credentials; sees no subject, compares no face"},
	{"tenant-operator", menshenv1.Role_ROLE_TENANT_OPERATOR, "manages scopes, credentials and subjects of one tenant; compares no face"},
	{"enroller", menshenv1.Role_ROLE_ENROLLER, "enrols and erases subjects of the scopes given"},
	{"gate", menshenv1.Role_ROLE_GATE, "verifies and identifies in the scopes given"},
	{"auditor", menshenv1.Role_ROLE_AUDITOR, "reads settings and subjects of one tenant; changes nothing"},
}

func parseRole(word string) (menshenv1.Role, error) {
	var words []string
	for _, r := range roles {
		if r.word == word {
			return r.role, nil
		}
		words = append(words, r.word)
	}
	return 0, usagef("--role: %q is none of %s", word, strings.Join(words, ", "))
}

func roleText(role menshenv1.Role) string {
	for _, r := range roles {
		if r.role == role {
			return r.word
		}
	}
	return role.String()
}

func (c *cli) credentialsCommand() *cobra.Command {
	var about strings.Builder
	about.WriteString("A credential is an API key, or a client certificate, with a role:\n")
	for _, r := range roles {
		fmt.Fprintf(&about, "  %-16s %s\n", r.word, r.does)
	}
	about.WriteString("A key is shown once, when it is made; the server keeps only its hash.")
	return group("credentials", "manage", "Create, list and revoke API keys and client certificates (platform admin, tenant operator)", about.String(),
		c.credentialsCreate(about.String()), c.credentialsList(), c.credentialsRevoke())
}

// clientCertificateUsage explains --client-certificate.
const clientCertificateUsage = "client certificate to know the holder by: its SPIFFE ID, or its subject like \"CN=gate-1,O=Acme\" (openssl x509 -noout -subject -nameopt RFC2253)"

func (c *cli) credentialsCreate(about string) *cobra.Command {
	var (
		tenant, role, expire, out string
		scopes                    []string
		quiet                     bool
		req                       menshenv1.CreateCredentialRequest
		credential                menshenv1.Credential
	)
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Make an API key, which is shown once, or bind a client certificate",
		Long: "Make an API key, or bind a client certificate.\n\n" + about + `

With --client-certificate the holder is known by that certificate, of an authority
that the server accepts (--tls-client-ca), and no key is made unless the server
demands both. The name is compared letter by letter, and one credential at a time
is bound to it. Only platform admins bind certificates.`,
		Example: `  menshen credentials create --role tenant-operator --tenant acme --out operator.key
  menshen credentials create --role gate --scope tenants/acme/scopes/hall-a \
    --display-name "north entrance, lane 3" --expire +30d --out gate.key
  menshen credentials create --role gate --scope tenants/acme/scopes/hall-a \
    --client-certificate spiffe://acme.example/hall-a/gate-1
  menshen credentials create --role auditor --tenant acme --quiet | pass insert -m acme-auditor`,
		Args: exactly(),
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "what the key may do (required)")
	f.StringSliceVar(&scopes, "scope", nil, "scope that the key covers, may be repeated; enroller and gate only")
	f.StringVar(&tenant, "tenant", tenantDefault(), tenantUsage+"; by default the key's own or that of --scope")
	f.StringVar(&credential.DisplayName, "display-name", "", "a note for people")
	f.StringVar(&credential.ClientCertificate, "client-certificate", "", clientCertificateUsage)
	f.StringVar(&expire, "expire", "", "when the key ends: 2026-12-31T18:00:00+08:00, or +30d from now (default: never)")
	f.StringVar(&out, "out", "", "write the key to this new file (mode 0600) instead of printing it")
	f.BoolVar(&quiet, "quiet", false, "print the key and nothing else")
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		var err error
		if credential.Role, err = parseRole(role); err != nil {
			return err
		}
		if quiet && (out != "" || c.json) {
			return usagef("--quiet prints the key alone; leave out --out and --json")
		}
		for _, s := range scopes {
			name, err := scopeName(s, tenant)
			if err != nil {
				return err
			}
			credential.Scopes = append(credential.Scopes, name)
		}
		if credential.ExpireTime, err = parseInstant("expire", expire, time.Now()); err != nil {
			return err
		}
		req.Credential, req.Parent = &credential, credentialParent(credential.Role, tenant, credential.Scopes)
		file, err := createKeyFile(out)
		if err != nil {
			return err
		}
		resp, err := menshenv1.NewAdminServiceClient(conn).CreateCredential(ctx, &req)
		keyless := err == nil && resp.ApiKey == "" && credential.ClientCertificate != ""
		if err == nil && resp.ApiKey == "" && !keyless {
			err = fmt.Errorf("%s was made by an earlier call with this --request-id, and its key cannot be shown again; revoke it and make another", resp.Credential.GetName())
		}
		if err != nil {
			return errors.Join(err, file.discard())
		}
		if keyless {
			if err := file.discard(); err != nil {
				return err
			}
			return c.printNewCredential(resp, "", quiet)
		}
		if err := file.write(resp.ApiKey); err != nil {
			return fmt.Errorf("the key of %s could not be kept (%w); revoke it and make another", resp.Credential.GetName(), err)
		}
		return c.printNewCredential(resp, out, quiet)
	})
}

// credentialParent is the tenant of a new credential: as given, or that of its
// scopes. A platform admin's has none.
func credentialParent(role menshenv1.Role, tenant string, scopes []string) string {
	if role == menshenv1.Role_ROLE_PLATFORM_ADMIN {
		return ""
	}
	if tenant == "" && len(scopes) > 0 {
		if parent, _, ok := strings.Cut(scopes[0], "/scopes/"); ok {
			return parent
		}
	}
	return tenantName(tenant)
}

func (c *cli) printNewCredential(resp *menshenv1.CreateCredentialResponse, out string, quiet bool) error {
	switch {
	case quiet && resp.ApiKey == "":
		return nil
	case quiet:
		_, err := fmt.Fprintln(c.stdout, resp.ApiKey)
		return err
	case c.json:
		if out != "" {
			resp.ApiKey = ""
		}
		return c.printMessage(resp)
	}
	key := resp.ApiKey
	if out != "" {
		key = "written to " + out
	}
	cr := resp.Credential
	if err := c.printFields("name", cr.Name, "role", roleText(cr.Role), "scopes", strings.Join(cr.Scopes, ", "),
		"certificate", cr.ClientCertificate, "note", cr.DisplayName, "expires", timeText(cr.ExpireTime), "key", key); err != nil {
		return err
	}
	if key == "" {
		fmt.Fprintln(c.stderr, "No key comes with it: the client certificate is enough.")
		return nil
	}
	if out == "" {
		fmt.Fprintln(c.stderr, "Keep the key now: it cannot be shown again.")
	}
	return nil
}

func (c *cli) credentialsList() *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List API keys, without their secrets, and client certificates",
		Long:    "List the credentials of a tenant; without --tenant those of the key's own tenant, and for a platform admin the platform's.",
		Example: "  menshen credentials list --tenant acme",
		Args:    exactly(),
	}
	cmd.Flags().StringVar(&tenant, "tenant", tenantDefault(), tenantUsage)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		all := &menshenv1.ListCredentialsResponse{}
		err := eachPage(func(token string) (string, error) {
			resp, err := menshenv1.NewAdminServiceClient(conn).ListCredentials(ctx, &menshenv1.ListCredentialsRequest{
				Parent: tenantName(tenant), PageSize: pageSize, PageToken: token})
			all.Credentials = append(all.Credentials, resp.GetCredentials()...)
			return resp.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(all)
		}
		t := newTable("CREDENTIAL", "ROLE", "SCOPES", "NOTE", "STATE", "CERTIFICATE")
		for _, cr := range all.Credentials {
			state := "valid"
			switch {
			case cr.RevokeTime != nil:
				state = "revoked " + timeText(cr.RevokeTime)
			case cr.ExpireTime != nil && cr.ExpireTime.AsTime().Before(time.Now()):
				state = "expired " + timeText(cr.ExpireTime)
			case cr.ExpireTime != nil:
				state = "expires " + timeText(cr.ExpireTime)
			}
			t.row(cr.Name, roleText(cr.Role), strings.Join(cr.Scopes, " "), cr.DisplayName, state, cr.ClientCertificate)
		}
		return c.printTable(t, "no credentials; make one with: menshen credentials create --role ROLE")
	})
}

func (c *cli) credentialsRevoke() *cobra.Command {
	var req menshenv1.RevokeCredentialRequest
	cmd := &cobra.Command{
		Use:     "revoke CREDENTIAL",
		Short:   "Make a credential useless from this instant on, on open connections too",
		Example: "  menshen credentials revoke tenants/acme/credentials/5f3k2q",
		Args:    exactly("CREDENTIAL"),
	}
	requestIDFlag(cmd, &req.RequestId)
	return c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, args []string) error {
		req.Name = args[0]
		resp, err := menshenv1.NewAdminServiceClient(conn).RevokeCredential(ctx, &req)
		if err != nil {
			return err
		}
		if c.json {
			return c.printMessage(resp.Credential)
		}
		return c.printFields("name", resp.Credential.Name, "revoked", timeText(resp.Credential.RevokeTime))
	})
}

// keyFile is a new file for a key. It is made before the key is, so that a key
// is never made that cannot be kept. The nil keyFile keeps nothing.
type keyFile struct{ f *os.File }

// createKeyFile makes the file with mode 0600; "" gives the nil keyFile.
func createKeyFile(path string) (*keyFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists already; keys are written to new files only, so remove it or name another", path)
	}
	if err != nil {
		return nil, fmt.Errorf("no key was made: %w", err)
	}
	return &keyFile{f}, nil
}

// write puts the key into the file and makes it durable.
func (k *keyFile) write(key string) error {
	if k == nil {
		return nil
	}
	_, err := k.f.WriteString(key + "\n")
	return errors.Join(err, k.f.Sync(), k.f.Close())
}

// discard removes the file again.
func (k *keyFile) discard() error {
	if k == nil {
		return nil
	}
	return errors.Join(k.f.Close(), os.Remove(k.f.Name()))
}
