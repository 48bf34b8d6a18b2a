//! The layout in words.

use std::collections::BTreeMap;
use std::fmt;

use super::{Block, HeadTransform, Layout, Site, SiteRole};

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.blocks.len(), self.sites.len(), self.linears.len());
        writeln!(f, "{} blocks, {} sites, {} linear layers", counts.0, counts.1, counts.2)?;
        self.write_blocks(f)?;
        match &self.head {
            Some(head) if head.is_tied() => writeln!(f, "head: tied to the embedding")?,
            Some(_) => writeln!(f, "head: a weight of its own")?,
            None => writeln!(f, "head: none found")?,
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for left in &self.left_alone {
            reasons.entry(&left.reason).or_default().push(&left.node);
        }
        for (reason, nodes) in reasons {
            let others = nodes.len() - 1;
            let more = if others > 0 { format!(" and {others} more") } else { String::new() };
            writeln!(f, "left alone: {}{more}: {reason}", nodes[0])?;
        }
        Ok(())
    }
}

impl Layout {
    /// Writes every kind of block once, with the numbers of the blocks that are of it.
    fn write_blocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = 0;
        while first < self.blocks.len() {
            let text = self.block_text(&self.blocks[first]);
            let same = self.blocks[first..].iter().take_while(|b| self.block_text(b) == text);
            let last = first + same.count() - 1;
            match last - first {
                0 => writeln!(f, "block {first}:")?,
                _ => writeln!(f, "blocks {first} to {last}:")?,
            }
            f.write_str(&text)?;
            first = last + 1;
        }
        Ok(())
    }

    fn block_text(&self, block: &Block) -> String {
        let mut text = String::new();
        for site in &block.sites {
            text += &format!("  {}\n", self.site_text(self.site(*site)));
        }
        for attention in block.attentions.iter().map(|id| self.attention(*id)) {
            let transform = match &attention.head_transform {
                Ok(HeadTransform::Online) => "online".to_owned(),
                Ok(HeadTransform::Folded { .. }) => "folded".to_owned(),
                Err(reason) => format!("none: {reason}"),
            };
            text += &format!(
                "  attention: {} query heads, {} key and value heads of {}; transform of keys: {transform}\n",
                attention.q_heads, attention.kv_heads, attention.head_size
            );
        }
        text
    }

    fn site_text(&self, site: &Site) -> String {
        let role = match &site.role {
            SiteRole::Norm { .. } => "after a norm",
            SiteRole::AttentionOutput { .. } => "after an attention",
            SiteRole::GatedMlp { .. } => "after a gated product",
            SiteRole::Other => "after something that takes no scale",
        };
        let widths = site.linears.iter().map(|id| self.linear(*id).out_features.to_string());
        let widths: Vec<String> = widths.collect();
        format!("{} channels to {}, {role}", site.channels, widths.join(", "))
    }
}
