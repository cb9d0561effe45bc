package credentials

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nodeagent/nodeagent/pkg/record"
)

// clientKind are the certificates by which the apiserver knows a node
// (behaviour row 1.19-1).
var clientKind = kind{name: "client", signer: certificatesv1.KubeAPIServerClientKubeletSignerName, usage: certificatesv1.UsageClientAuth}

// sight is what the files say at one moment.
type sight struct {
	access *access    // what is to be used; nil if there is nothing
	own    kubeconfig // the kubeconfig
	boot   kubeconfig // the bootstrap kubeconfig
	stored *access    // by the certificate that was asked for; nil if there is none
	doubt  error      // what is wrong, though it hinders nobody
	files  []string
}

// base is where the server is, whoever we are; nil if no file says.
func (s sight) base() *access {
	if s.own.where != nil {
		return s.own.where
	}
	return s.boot.where
}

// see reads what is there.
func (c *Cluster) see(now time.Time) sight {
	s := sight{own: readKubeconfig(c.options.Kubeconfig)}
	s.files = s.own.files
	if c.options.Bootstrap != "" {
		s.boot = readKubeconfig(c.options.Bootstrap)
		s.files = append(s.files, s.boot.files...)
		if err := s.boot.err; err != nil && (s.own.as == nil || !errors.Is(err, fs.ErrNotExist)) { // it is often removed after the join
			s.doubt = fmt.Errorf("bootstrap kubeconfig: %w", err)
		}
	}
	if base := s.base(); base != nil && (c.options.Rotate || s.boot.as != nil) {
		var err error
		s.stored, err = base.withCertificate(c.certs.CurrentPath())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.doubt = errors.Join(s.doubt, err)
		}
		s.files = append(s.files, c.certs.CurrentPath())
	}
	s.access = s.choose(c.options.Rotate, now)
	return s
}

// choose finds what is to be used. With rotateCertificates the credentials of
// the kubeconfig are a beginning only: the certificate that was asked for with
// them, and each after it, goes before them. Without, they stand while they are
// valid.
func (s sight) choose(rotate bool, now time.Time) *access {
	switch {
	case s.stored == nil:
		return s.own.as
	case s.own.as == nil:
		return s.stored
	case rotate && s.stored.valid(now):
		return s.stored
	case s.own.as.valid(now) || !s.own.as.anonymous():
		return s.own.as
	case s.stored.valid(now) || rotate:
		return s.stored
	}
	return s.own.as
}

// expired says that the certificate to be used is, by this machine's clock.
func (s sight) expired(now time.Time) bool {
	return s.access != nil && s.access.leaf != nil && !s.access.valid(now)
}

// expires is when the client certificate does, for people.
func (s sight) expires() string {
	if s.access == nil || s.access.leaf == nil {
		return "never"
	}
	return s.access.leaf.NotAfter.UTC().Format(time.RFC3339)
}

// unusable says why clients cannot use what was seen. An expired certificate is
// no reason unless a new one can be had: it is expired by this machine's clock,
// and the apiserver judges by its own.
func (s sight) unusable(now time.Time) error {
	switch {
	case s.access == nil && s.boot.as != nil:
		return errors.New("a client certificate is asked for with the bootstrap kubeconfig")
	case s.access == nil:
		return s.own.err
	case s.expired(now) && s.boot.as != nil:
		return fmt.Errorf("the client certificate has expired at %s, a new one is asked for with the bootstrap kubeconfig", s.expires())
	}
	return nil
}

// order says what is to be asked for, when, and as whom: as the certificate
// itself while it is valid, else as the bootstrap kubeconfig says.
func (c *Cluster) order(s sight, now time.Time) order {
	o := order{files: s.files, template: &x509.CertificateRequest{Subject: subject(c.options.NodeName)}}
	a := s.access
	ask := func(at time.Time, as *access) order {
		o.at, o.as = at, string(as.sum[:])
		o.connect = func() (kubernetes.Interface, func(), error) { return c.connect(as) }
		return o
	}
	boot := s.boot.as
	switch rotate := c.options.Rotate; {
	case !a.valid(now) && a != nil && !a.anonymous():
		if rotate { // a token or plugin is to be replaced by a certificate
			return ask(now, a)
		}
	case !a.valid(now) && boot != nil:
		return ask(now, boot)
	case s.expired(now) && rotate: // perhaps the clock is wrong
		return ask(now, a)
	case a.valid(now) && rotate && a.leaf.Subject.CommonName == o.template.Subject.CommonName:
		return ask(renewal(a.leaf, a.config.CertFile), a)
	case a.valid(now) && rotate && boot == nil: // an admin's, say
		return ask(now, a)
	case a.valid(now) && rotate:
		return ask(now, boot)
	case a.valid(now) && boot != nil:
		return ask(a.leaf.NotAfter, boot)
	}
	return o
}

// subject is a node's name in certificates.
func subject(node string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}
}

// connect makes a client for one request for a certificate.
func (c *Cluster) connect(as *access) (kubernetes.Interface, func(), error) {
	w, err := newWay(as, normalPace)
	if err != nil {
		return nil, nil, err
	}
	client, err := c.clients(&rest.Config{Host: as.server.String(), Transport: w, UserAgent: userAgent})
	if err != nil {
		w.close()
		return nil, nil, err
	}
	return client, w.close, nil
}

// settle writes down what others look for: the first certificate of a
// kubeconfig in our own folder (kubeadm makes the kubeconfig point there once it
// is), and the kubeconfig, when a bootstrap has led to a certificate.
func (c *Cluster) settle(s sight, now time.Time) (written bool, err error) {
	own := s.own.as
	if c.options.Rotate && s.access == own && own.valid(now) && own.leaf.Subject.CommonName == subject(c.options.NodeName).CommonName {
		if _, err := c.certs.Update(own.config.CertData, own.config.KeyData); err != nil {
			return false, fmt.Errorf("keep the kubeconfig's client certificate in %s: %w", c.options.CertDir, err)
		}
		return true, nil
	}
	if s.boot.as == nil || s.access != s.stored || !s.stored.valid(now) {
		return false, nil
	}
	// A kubeconfig that cannot be read may be about to be written by somebody.
	missing := own == nil && (errors.Is(s.own.err, fs.ErrNotExist) || c.keeper.issued)
	if !missing && (own == nil || own.valid(now)) {
		return false, nil
	}
	if err := c.writeKubeconfig(s.boot.as); err != nil {
		return false, fmt.Errorf("write kubeconfig: %w", err)
	}
	c.log.Info("kubeconfig is written", "path", c.options.Kubeconfig, "certificate", c.certs.CurrentPath())
	return true, nil
}

// writeKubeconfig makes the kubeconfig as the kubelet does (behaviour row
// 1.19-2): to the bootstrap's server, with the file of the newest certificate.
func (c *Cluster) writeKubeconfig(boot *access) error {
	cluster := &clientcmdapi.Cluster{
		Server:                boot.config.Host,
		TLSServerName:         boot.config.ServerName,
		InsecureSkipTLSVerify: boot.config.Insecure,
		CertificateAuthority:  boot.config.CAFile,
	}
	if cluster.CertificateAuthority == "" {
		cluster.CertificateAuthorityData = boot.config.CAData
	}
	path := c.certs.CurrentPath()
	raw, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": cluster},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"default-auth": {ClientCertificate: path, ClientKey: path}},
		Contexts:       map[string]*clientcmdapi.Context{"default-context": {Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}},
		CurrentContext: "default-context",
	})
	if err != nil {
		return err
	}
	dir, name := filepath.Split(c.options.Kubeconfig)
	if dir == "" {
		dir = "."
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return record.Replace(dir, name, raw)
}

// tell says what is wrong with the credentials, once.
func (c *Cluster) tell(s sight, now time.Time) {
	var wrong []error
	unusable := s.unusable(now)
	switch {
	case unusable != nil:
		wrong = append(wrong, unusable)
	case s.expired(now):
		wrong = append(wrong, fmt.Errorf("the client certificate has expired at %s, or the clock is wrong; put a new kubeconfig in place, or a bootstrap kubeconfig where --bootstrap-kubeconfig says", s.expires()))
	case s.access.leaf != nil && now.Before(s.access.leaf.NotBefore):
		wrong = append(wrong, fmt.Errorf("the client certificate is valid from %s on only: look at the clock", s.access.leaf.NotBefore.UTC().Format(time.RFC3339)))
	}
	if unusable == nil && s.own.as == nil {
		wrong = append(wrong, s.own.err)
	}
	wrong = append(wrong, s.doubt)
	err := errors.Join(wrong...)
	switch news := c.problem.news(err); {
	case news && err != nil:
		c.log.Warn("credentials for the apiserver", "problem", err, "kubeconfig", c.options.Kubeconfig)
	case news:
		c.log.Info("credentials for the apiserver are there", "expires", s.expires())
	}
}
