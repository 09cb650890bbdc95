"""DPO beside a value head, and a policy kind that gives, of several answers, the one that this head likes best."""

import math
from dataclasses import dataclass

from pydantic import PositiveInt

import prefzoo


class ValueFiltered(prefzoo.PolicyWithModules):
    kind = "value_filtered"

    @classmethod
    def new_modules(cls, model):
        from torch import nn

        return {"value_head": nn.Linear(model.config.get_text_config().hidden_size, 1)}

    def sample(self, prompts, generation, seed, n=1, ledger=None, progress=None):
        k, head = self.settings["candidates"], self.modules["value_head"]
        drawn = self.policy.sample(prompts, generation, seed, n=n * k, ledger=ledger, progress=progress)
        states = self.policy.last_hidden_states(prompts, drawn, ledger)
        best = head(states.to(head.weight.dtype)).reshape(len(prompts), n, k).argmax(-1).tolist()
        return [[row[i * k + at[i]] for i in range(n)] for row, at in zip(drawn, best, strict=True)]

    def kl_to_start(self, prompts, completions, temperature=1.0):
        k = self.settings["candidates"]  # filtering adds at most log k - (k - 1) / k (arXiv 2401.01879)
        return [
            ratio + math.log(k) - (k - 1) / k for ratio in self.policy.log_ratios(prompts, completions, temperature)
        ]


prefzoo.register_policy("value_filtered", ValueFiltered)


@prefzoo.register("value_filter")
@dataclass(frozen=True)
class ValueFilter(prefzoo.Algorithm):
    """DPO beside a value head that learns to tell the chosen reply from the rejected one."""

    needs = frozenset({"preferences"})
    config = "trl.trainer.dpo_config:DPOConfig"
    candidates: PositiveInt = 4

    def train(self, bench):
        from torch.nn.functional import logsigmoid
        from trl import DPOConfig, DPOTrainer

        from prefzoo.models.language_model import last_hidden_states

        class WithHead(DPOTrainer):
            def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
                loss, trained = super().compute_loss(model, inputs), self.accelerator.unwrap_model(model)
                states = last_hidden_states(trained, inputs["input_ids"], inputs["attention_mask"], bench.ledger)
                chosen, rejected = trained.value_head(states.to(trained.value_head.weight.dtype)).chunk(2)
                return loss - logsigmoid(chosen - rejected).mean()

        kind = {"policy_kind": ValueFiltered, "policy_settings": {"candidates": self.candidates}}
        return prefzoo.fit(bench, WithHead, DPOConfig, bench.data.preferences, self.trainer, reference=True, **kind)
