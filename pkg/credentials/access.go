package credentials

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const userAgent = "nodeagent"

// access is where an apiserver is, and as whom it is spoken to. It never
// changes: certificates are read into it.
type access struct {
	config *rest.Config
	server *url.URL
	leaf   *x509.Certificate // the client certificate, nil if there is none
	sum    [sha256.Size]byte // of all that it was made from
}

// kubeconfig is what such a file says.
type kubeconfig struct {
	as    *access // as whom the server is spoken to; nil if that cannot be
	where *access // the server alone; nil if the file does not name one
	err   error   // why as is nil
	files []string
}

// readKubeconfig reads the file and the certificates that it names. What it
// names may be missing, and come later.
func readKubeconfig(path string) (k kubeconfig) {
	k.files = []string{path}
	raw, err := os.ReadFile(path)
	if err != nil {
		k.err = err
		return k
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	loaded, err := rules.Load() // it knows what relative paths mean
	if err != nil {
		k.err = err
		return k
	}
	cert, key := k.take(loaded)
	config, err := clientcmd.NewNonInteractiveClientConfig(*loaded, loaded.CurrentContext, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("it names no cluster")
	}
	if err == nil {
		k.where, err = newAccess(rest.AnonymousClientConfig(config), raw)
	}
	if err == nil {
		if cert != "" {
			config.CertFile, config.KeyFile = cert, key
		}
		k.as, err = newAccess(config, raw)
	}
	if err != nil {
		k.err = fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return k
}

// take notes the files that the current context names, and takes the client
// certificate's out: clientcmd knows no server if those cannot be read. Files
// of tokens are read by client-go every minute.
func (k *kubeconfig) take(loaded *clientcmdapi.Config) (cert, key string) {
	current := loaded.Contexts[loaded.CurrentContext]
	if current == nil {
		return "", ""
	}
	if cluster := loaded.Clusters[current.Cluster]; cluster != nil && cluster.CertificateAuthority != "" {
		k.files = append(k.files, cluster.CertificateAuthority)
	}
	user := loaded.AuthInfos[current.AuthInfo]
	if user == nil || user.ClientCertificate == "" || user.ClientKey == "" {
		return "", ""
	}
	cert, key = user.ClientCertificate, user.ClientKey
	k.files = append(k.files, cert, key)
	user.ClientCertificate, user.ClientKey = "", ""
	return cert, key
}

// newAccess reads what the configuration names, and checks that connections can
// be made with it. source is what else may change.
func newAccess(config *rest.Config, source []byte) (*access, error) {
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, err
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	a := &access{config: config, server: server}
	if config.CertFile != "" || len(config.CertData) > 0 {
		if a.leaf, err = leafOf(config.CertData, config.KeyData); err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", config.CertFile, err)
		}
	}
	if _, err := rest.TLSConfigFor(config); err != nil {
		return nil, err
	}
	sum := sha256.New()
	for _, part := range [][]byte{source, config.CAData, config.CertData, config.KeyData} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	sum.Sum(a.sum[:0])
	return a, nil
}

func leafOf(certPEM, keyPEM []byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

// withCertificate is a way to the same server with a certificate of one's own,
// and no other credentials. The file holds both, certificate and key.
func (a *access) withCertificate(path string) (*access, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(a.config)
	config.CertFile, config.KeyFile = path, path
	config.CertData, config.KeyData = raw, raw
	return newAccess(config, a.sum[:])
}

// anonymous says that the kubeconfig holds no credentials but perhaps a
// certificate.
func (a *access) anonymous() bool {
	c := a.config
	return c.BearerToken == "" && c.BearerTokenFile == "" && c.Username == "" && c.ExecProvider == nil && c.AuthProvider == nil
}

// valid says that there is a certificate and that it has not expired by this
// machine's clock. One that is not valid yet counts: waiting will help it, and
// the apiserver's clock may say otherwise.
func (a *access) valid(now time.Time) bool {
	return a != nil && a.leaf != nil && !now.After(a.leaf.NotAfter)
}
