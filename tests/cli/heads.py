# SPDX-License-Identifier: MIT
# tests/cli/heads.py - the other side of adapters_heads.sh: new heads beside adapters in Hugging Face's PEFT.
#
#   heads.py begin FOLDER      for each case FOLDER/CASE: a random encoder without a head in base, and in theirs an adapter
#                              with a head that PEFT wrote; FOLDER/CASE/want: its logits
#   heads.py compare FOLDER    a line a case: its name, how far PEFT's logits with the adapter in mine are from those of
#                              the weights in merged, and how far those of the weights in theirs_merged are from want
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

T = 16
torch.manual_seed(5)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
SIZES = dict(num_hidden_layers=2, num_attention_heads=2, hidden_size=32, intermediate_size=48, vocab_size=40)
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] . the wheel turns a gear of train and its teeth meet another good bad film".split()
CASES = ["bert-classify", "roberta-classify", "bert-mlm"]


def bases(case):
    if case.startswith("roberta"):
        config = transformers.RobertaConfig(max_position_embeddings=T + 2, pad_token_id=1, **SIZES)
        return transformers.RobertaModel(config, add_pooling_layer=False)
    config = transformers.BertConfig(max_position_embeddings=T, **SIZES)
    return transformers.BertModel(config, add_pooling_layer=case != "bert-mlm")


def load(case, folder):
    torch.manual_seed(6)                    # what a folder lacks
    if case.endswith("mlm"):
        return transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()


@torch.no_grad()
def logits(model):
    x = torch.arange(3 * T).reshape(3, T) * 7 % 35 + 5
    return model(input_ids=x).logits


def begin(root):
    for case in CASES:
        folder = root + "/" + case
        model = bases(case)
        for p in model.parameters():
            p.data += 0.08 * torch.randn_like(p)
        model.save_pretrained(folder + "/base")
        with open(folder + "/base/vocab.txt", "w") as out:
            out.write("".join(w + "\n" for w in WORDS + ["[unused%d]" % i for i in range(40 - len(WORDS))]))
        mlm = case.endswith("mlm")
        config = LoraConfig(r=2, lora_alpha=3, task_type=None if mlm else "SEQ_CLS",
                            modules_to_save=["cls"] if mlm else None, target_modules=["query", "value"])
        model = get_peft_model(load(case, folder + "/base"), config).eval()
        for name, p in model.named_parameters():
            if ("lora_" in name or "modules_to_save" in name) and "decoder" not in name:
                p.data += 0.2 * torch.randn_like(p)
        model.save_pretrained(folder + "/theirs")
        torch.save(logits(model), folder + "/want")


def compare(root):
    for case in CASES:
        folder = root + "/" + case
        mine = logits(PeftModel.from_pretrained(load(case, folder + "/base"), folder + "/mine").eval())
        a = (mine - logits(load(case, folder + "/merged"))).abs().max()
        b = (torch.load(folder + "/want") - logits(load(case, folder + "/theirs_merged"))).abs().max()
        print("%s %.3g %.3g" % (case, a, b))


{"begin": begin, "compare": compare}[sys.argv[1]](*sys.argv[2:])
