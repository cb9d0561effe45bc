package agent

import (
	"log/slog"

	"github.com/nodeagent/nodeagent/pkg/config"
	"github.com/nodeagent/nodeagent/pkg/credentials/images"
	"github.com/nodeagent/nodeagent/pkg/cri"
)

// credentialPlugins are the programs that know credentials of registries.
func credentialPlugins(c *config.Config, log *slog.Logger) ([]cri.CredentialPlugin, error) {
	if c.Paths.ImageCredentialConfig == "" {
		return nil, nil
	}
	plugins, err := images.Read(c.Paths.ImageCredentialConfig, c.Paths.ImageCredentialBinDir, log)
	if err != nil {
		return nil, err
	}
	var out []cri.CredentialPlugin
	for _, p := range plugins {
		out = append(out, p)
	}
	return out, nil
}
